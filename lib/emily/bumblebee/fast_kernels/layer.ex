defmodule Emily.Bumblebee.FastKernels.Layer do
  @moduledoc false
  # What the kinds of layers share. Each kind's module has `rewrite(node, nodes)`, which answers
  # `{:rewritten, kind, node}`, `{:left, kind, reason}`, or nil for a node of another kind.

  @doc """
  What a node computes: the name of a layer of Axon, or module and name of a function.

  A function without a name of its own has one that the Elixir compiler made up of where it
  stands, such as `:"-layer_norm/2-fun-1-"`.
  """
  def operation(%{op: op}) when is_function(op) do
    {:module, module} = Function.info(op, :module)
    {:name, name} = Function.info(op, :name)
    {module, name}
  end

  def operation(%{op: op}), do: op

  @compile {:no_warn_undefined, Axon.Layers}

  @doc "Computes as the node did before."
  def original(op, args) when is_function(op), do: apply(op, args)
  def original(op, args) when is_atom(op), do: apply(Axon.Layers, op, args)

  @doc "Whether an optional input of a layer is missing."
  defguard is_none(input) when is_struct(input, Axon.None)

  @doc "Whether the kernels take these tensors, all of one type, without loss."
  def fused_types?([%{type: type} | _] = tensors) do
    type in [{:f, 32}, {:f, 16}, {:bf, 16}] and Enum.all?(tensors, &(&1.type == type))
  end

  @doc """
  The number that all elements of a traced tensor have in common, nil where that is not known
  without its data.
  """
  def constant(%Nx.Tensor{data: %Nx.Defn.Expr{op: op, args: args}}) do
    case {op, args} do
      {:constant, [number]} ->
        number

      {:metadata, [inner, _]} ->
        constant(inner)

      {same, [inner | _]} when same in [:as_type, :broadcast, :reshape, :squeeze] ->
        constant(inner)

      {:tensor, [%{shape: {}} = tensor]} ->
        Nx.to_number(tensor)

      _ ->
        nil
    end
  end

  def constant(_), do: nil
end
