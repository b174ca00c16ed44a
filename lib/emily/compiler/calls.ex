defmodule Emily.Compiler.Calls do
  @moduledoc false
  # What a compiled program calls: functions of arrays, the device, and the hooks of the caller.

  alias Emily.Backend
  alias Emily.Lower.Effects
  alias Nx.Defn.{Composite, Evaluator, Expr}
  alias Nx.Tensor, as: T

  @type t :: ([Emily.Native.array()], Emily.Device.t(), map -> [Emily.Native.array()])

  @doc "A hook, by the function that the caller has for its name, or its own."
  def hook(expr, name, callback) do
    template = Composite.traverse(expr, &seen/1)

    fn arrays, device, hooks ->
      (hooks[name] || callback).(fill(template, arrays, device))
      []
    end
  end

  # As from Nx.Defn.Evaluator, arguments come without vectorised axes.
  defp seen(%T{data: %Expr{op: :parameter}} = tensor),
    do: tensor |> Nx.devectorize() |> Nx.to_template()

  defp seen(tensor), do: Nx.to_template(tensor)

  @doc "A function of the user's within the program."
  def runtime(expr, fun, out, opts) do
    template = Nx.to_template(expr)

    fn arrays, device, _hooks ->
      result = apply(fun, [fill(template, arrays, device) | opts])

      if not Nx.compatible?(out, result) do
        raise ArgumentError,
              "the function of runtime_call must answer what its template says, " <>
                "#{inspect(out)}, got: #{inspect(result)}"
      end

      arrays(result, device)
    end
  end

  @doc "An operation by `fun` on tensors, which `arguments` hold: an eager call."
  def eager(fun, arguments) do
    arguments = Enum.map(arguments, &precompiled/1)

    fn arrays, device, hooks ->
      {arguments, []} =
        map(arguments, arrays, fn tensor, [array | arrays] ->
          {Backend.tensor(tensor, array, device), arrays}
        end)

      arguments |> Enum.map(&callable(&1, hooks)) |> fun.() |> arrays(device)
    end
  end

  @doc "The tensors among the arguments of an operation."
  def tensors(arguments) do
    {_, tensors} = map(arguments, [], &{&1, [&1 | &2]})
    Enum.reverse(tensors)
  end

  @doc "A composite of templates with its arrays."
  def fill(template, arrays, device) do
    {filled, []} =
      Composite.traverse(template, arrays, fn leaf, [array | arrays] ->
        {leaf |> kept() |> Backend.tensor(array, device), arrays}
      end)

    filled
  end

  @doc "What functions give and show, which the caller did not donate, though an argument may have been."
  # Nx up to 0.13 has no such field.
  @spec kept(struct()) :: struct()
  def kept(%{donatable?: true} = tensor), do: %{tensor | donatable?: false}
  def kept(tensor), do: tensor

  defp arrays(composite, device) do
    [composite] |> Composite.flatten_list() |> Enum.map(&Backend.array(&1, device))
  end

  defp map(arguments, acc, fun) do
    Enum.map_reduce(arguments, acc, fn
      %T{data: %Backend{}} = tensor, acc -> fun.(tensor, acc)
      list, acc when is_list(list) -> map(list, acc, fun)
      other, acc -> {other, acc}
    end)
  end

  # A function of two numbers, such as that of Nx.reduce/4. Evaluators keep a function without the parts that its
  # expression shares, so that the program can be copied; one with hooks takes the caller's.
  defp precompiled(%T{data: %Expr{op: :fun, args: [parameters, body, _mfa]}} = node) do
    if Effects.any?(body),
      do: node,
      else: {:evaluator, evaluator(parameters, body, %{})}
  end

  defp precompiled(other), do: other

  defp callable({:evaluator, run}, _hooks), do: of_two(run)

  defp callable(%T{data: %Expr{op: :fun, args: [parameters, body, _mfa]}}, hooks),
    do: of_two(evaluator(parameters, body, hooks))

  defp callable(other, _hooks), do: other

  defp evaluator(parameters, body, hooks),
    do: Evaluator.__compile__(nil, parameters, fn _parameters -> body end, hooks: hooks)

  defp of_two(run) do
    fn x, y ->
      [result] = run.([[fn -> Nx.to_tensor(x) end, fn -> Nx.to_tensor(y) end]])
      result
    end
  end
end
