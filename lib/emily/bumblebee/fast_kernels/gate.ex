defmodule Emily.Bumblebee.FastKernels.Gate do
  @moduledoc false
  # GELU, and gates: the product of two layers, of which one is an activation. The product is rewritten and gets
  # the activation's input beside its own; the activation stays in the graph.

  import Emily.Bumblebee.FastKernels.Layer

  alias Bumblebee.Layers
  alias Emily.Fast

  def rewrite(%{op: :multiply, parent: [pair]} = node, nodes) do
    with %{op_name: :container, parent: [_, _] = factors} <- nodes[pair],
         {activation, up} <- split(factors, nodes) do
      decide(node, activation, up)
    else
      _ -> nil
    end
  end

  def rewrite(%{op: op, parent: [_]} = node, nodes) do
    with name when name in [:gelu, :gelu_tanh] <- activation(node),
         false <- Enum.any?(nodes, fn {_id, reader} -> gate?(reader, node.id, nodes) end) do
      run = fn x, opts ->
        if fused_types?([x]), do: gelu(x, name), else: original(op, [x, opts])
      end

      {:rewritten, :gelu, %{node | op: run}}
    else
      _ -> nil
    end
  end

  def rewrite(_node, _nodes), do: nil

  # The activation among two factors, and the other one.
  defp split([first, second], nodes) do
    cond do
      activation(nodes[first]) -> {nodes[first], second}
      activation(nodes[second]) -> {nodes[second], first}
      true -> nil
    end
  end

  # Whether a node is the product that takes this activation in.
  defp gate?(%{op: :multiply, parent: [pair]} = reader, id, nodes) do
    with %{op_name: :container, parent: [_, _] = factors} <- nodes[pair],
         {%{id: ^id} = activation, up} <- split(factors, nodes) do
      match?({:rewritten, _, _}, decide(reader, activation, up))
    else
      _ -> false
    end
  end

  defp gate?(_reader, _id, _nodes), do: false

  defp decide(node, activation, up) do
    name = activation(activation)
    kind = if name == :silu, do: :swiglu, else: :geglu

    cond do
      activation.hooks != [] ->
        {:left, kind, "a hook is attached to its activation"}

      activation.policy != node.policy ->
        {:left, kind, "its activation has another policy of types"}

      true ->
        op = node.op

        run = fn gate, up, pair, opts ->
          if fused_types?([gate, up]) and gate.shape == up.shape,
            do: gated(gate, up, name),
            else: original(op, [pair, opts])
        end

        {:rewritten, kind,
         %{
           node
           | op: run,
             parent: activation.parent ++ [up | node.parent],
             args: [:layer, :layer, :layer]
         }}
    end
  end

  defp activation(%{op: :silu, parent: [_]}), do: :silu
  defp activation(%{op: :gelu, parent: [_]}), do: :gelu

  defp activation(%{op: op, parent: [_]}) when is_function(op) do
    with {Layers, name} <- operation(%{op: op}),
         true <- String.starts_with?(Atom.to_string(name), "-activation/3-fun-"),
         {:env, env} <- Function.info(op, :env),
         true <- :gelu_approx_tanh in env do
      :gelu_tanh
    else
      _ -> nil
    end
  end

  defp activation(_node), do: nil

  defp gelu(x, :gelu), do: Fast.gelu(x)
  defp gelu(x, :gelu_tanh), do: Fast.gelu(x, approximation: :tanh)

  defp gated(gate, up, :silu), do: Fast.swiglu(gate, up)
  defp gated(gate, up, :gelu), do: Fast.geglu(gate, up)
  defp gated(gate, up, :gelu_tanh), do: Fast.geglu(gate, up, approximation: :tanh)
end
