defmodule Emily.Conformance.Equality do
  @moduledoc false
  # Nx's tests compare with `==`, which tells tensors apart that are not on Nx.BinaryBackend. Here
  # tensors are equal by type, shape, names and numbers; what differs in the last printed digit only
  # is counted.
  #
  # Doctests compare the text of a tensor to the letter, here too, but for those that `allow/1` names:
  # there floats may differ in the last digit, or by what a library's own tests allow.

  # Relative and absolute: four units in the last place, and the defaults of Scholar's `assert_all_close`.
  @tolerances %{f32: {4.8e-7, 0.0}, f64: {8.9e-16, 0.0}, scholar: {1.0e-4, 1.0e-4}}

  def start, do: Agent.start_link(fn -> 0 end, name: __MODULE__)

  @doc "From here on these doctests, each with the type of its last digit or `:scholar`, may differ by its tolerance."
  def allow(tests) do
    types = Map.new(tests, fn {%{name: name}, type, _reason} -> {name, type} end)
    :persistent_term.put(__MODULE__, types)
  end

  @doc "How many comparisons held to the last digit only."
  def last_digits, do: Agent.get(__MODULE__, & &1)

  def same?(left, right), do: same?(left, right, @tolerances.f32)

  defp same?(left, right, tolerance) do
    {left, right} = {plain(left), plain(right)}

    cond do
      left == right ->
        true

      near?(left, right, tolerance) ->
        Agent.update(__MODULE__, &(&1 + 1))
        true

      true ->
        false
    end
  end

  @doc "Whether a doctest may take one value for the other."
  def same_value?(test, left, right) do
    case :persistent_term.get(__MODULE__, %{}) do
      %{^test => type} -> same?(left, right, @tolerances[type])
      _ -> left === right
    end
  end

  @doc "Whether a doctest may take one text for the other."
  def same_text?(test, left, right) do
    case :persistent_term.get(__MODULE__, %{}) do
      %{^test => type} when left != right -> near_text?(parts(left), parts(right), type)
      _ -> left == right
    end
  end

  defp near_text?(left, right, type) do
    near? = fn {a, b} -> a == b or near?(a, b, @tolerances[type]) end
    near? = length(left) == length(right) and Enum.all?(Enum.zip(left, right), near?)
    if near?, do: Agent.update(__MODULE__, &(&1 + 1))
    near?
  end

  # The floats of a text, and what stands between them.
  defp parts(text) do
    for part <- Regex.split(~r/[-+]?\d+\.\d+(e[-+]?\d+)?/, text, include_captures: true) do
      case Float.parse(part) do
        {float, ""} -> float
        _ -> part
      end
    end
  end

  # Tensors as tuples of numbers, in which all NaN are one.
  defp plain(%Nx.Tensor{data: %Nx.Defn.Expr{}} = expr), do: expr
  defp plain(%Nx.Tensor{data: %Nx.TemplateBackend{}} = template), do: template

  defp plain(%Nx.Tensor{} = tensor) do
    numbers = tensor |> Nx.devectorize() |> Nx.to_flat_list()
    {Nx.Tensor, tensor.type, tensor.shape, tensor.names, tensor.vectorized_axes, numbers}
  end

  defp plain(%Complex{} = complex), do: complex

  defp plain(%module{} = struct),
    do: {module, struct |> Map.from_struct() |> plain()}

  defp plain(%{} = map), do: Map.new(map, fn {key, value} -> {key, plain(value)} end)
  defp plain([head | tail]), do: [plain(head) | plain(tail)]

  defp plain(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> plain() |> List.to_tuple()

  defp plain(other), do: other

  defp near?(a, a, _tolerance), do: true

  defp near?(a, b, {relative, absolute}) when is_float(a) and is_float(b),
    do: abs(a - b) <= relative * max(abs(a), abs(b)) + absolute

  defp near?(%Complex{} = a, %Complex{} = b, tolerance) do
    near?(a.re, b.re, tolerance) and near?(a.im, b.im, tolerance)
  end

  defp near?([a | as], [b | bs], tolerance),
    do: near?(a, b, tolerance) and near?(as, bs, tolerance)

  defp near?(a, b, tolerance) when is_tuple(a) and is_tuple(b),
    do: near?(Tuple.to_list(a), Tuple.to_list(b), tolerance)

  defp near?(%{} = a, %{} = b, tolerance) when map_size(a) == map_size(b) do
    Enum.all?(a, fn {key, value} -> is_map_key(b, key) and near?(value, b[key], tolerance) end)
  end

  defp near?(_a, _b, _tolerance), do: false
end
