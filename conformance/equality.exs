defmodule Emily.Conformance.Equality do
  @moduledoc false
  # Nx's tests compare with `==`, which tells tensors apart that are not on Nx.BinaryBackend. Here
  # tensors are equal by type, shape, names and numbers; what differs in the last printed digit only
  # is counted.

  # Four units in the last place of f32.
  @last_digit 4.8e-7

  def start, do: Agent.start_link(fn -> 0 end, name: __MODULE__)

  @doc "How many comparisons held to the last digit only."
  def last_digits, do: Agent.get(__MODULE__, & &1)

  def same?(left, right) do
    {left, right} = {plain(left), plain(right)}

    cond do
      left == right ->
        true

      near?(left, right) ->
        Agent.update(__MODULE__, &(&1 + 1))
        true

      true ->
        false
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

  defp near?(a, a), do: true

  defp near?(a, b) when is_float(a) and is_float(b),
    do: abs(a - b) <= @last_digit * max(abs(a), abs(b))

  defp near?(%Complex{} = a, %Complex{} = b) do
    near?(a.re, b.re) and near?(a.im, b.im)
  end

  defp near?([a | as], [b | bs]), do: near?(a, b) and near?(as, bs)

  defp near?(a, b) when is_tuple(a) and is_tuple(b),
    do: near?(Tuple.to_list(a), Tuple.to_list(b))

  defp near?(%{} = a, %{} = b) when map_size(a) == map_size(b),
    do: Enum.all?(a, fn {key, value} -> is_map_key(b, key) and near?(value, b[key]) end)

  defp near?(_a, _b), do: false
end
