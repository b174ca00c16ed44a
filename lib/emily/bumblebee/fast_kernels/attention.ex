defmodule Emily.Bumblebee.FastKernels.Attention do
  @moduledoc false
  # Attention, which is three nodes: the weights (a softmax of scores), their dropout, and the sum
  # of values by weight. The last is rewritten and gets the inputs of the first beside its own. The
  # first two stay in the graph, for their names, their state, and those who read the weights;
  # where nobody does, they are no part of what is computed.

  import Emily.Bumblebee.FastKernels.Layer

  alias Bumblebee.Layers
  alias Emily.Bumblebee.FastKernels.{Grouped, Mask}
  alias Emily.Fast.CachedAttention

  def rewrite(%{parent: [before, _value]} = node, nodes) do
    if operation(node) == {Layers, :attention_output_impl},
      do: decide(node, weights(nodes[before], nodes))
  end

  def rewrite(_node, _nodes), do: nil

  # The node of the weights and, where there is one, that of their dropout.
  defp weights(%{op: :dropout, parent: [before]} = dropout, nodes) do
    case weights(nodes[before], nodes) do
      [weights] -> [weights, dropout]
      _ -> nil
    end
  end

  defp weights(%{parent: [_, _, _, _, _, _]} = node, _nodes),
    do: if(operation(node) == {Layers, :attention_weights_impl}, do: [node])

  defp weights(_node, _nodes), do: nil

  defp decide(_node, nil),
    do: {:left, :attention, "its weights are not computed by Bumblebee.Layers.attention"}

  defp decide(%{op: op} = node, [weights | dropout] = before) do
    cond do
      Enum.any?(before, &(&1.hooks != [])) ->
        {:left, :attention, "a hook is attached to its weights"}

      Enum.any?(before, &(&1.policy != node.policy)) ->
        {:left, :attention, "its weights have another policy of types"}

      not (weights.opts[:scale] == nil or is_number(weights.opts[:scale])) ->
        {:left, :attention, "its scale is no number"}

      true ->
        {:rewritten, :attention,
         %{
           node
           | op: runner(op, weights.opts, dropout),
             parent: node.parent ++ weights.parent,
             args: List.duplicate(:layer, 8),
             global_options: [:output_attentions | node.global_options]
         }}
    end
  end

  defp runner(op, attention, dropout) do
    dropout? = Enum.any?(dropout, &(&1.opts[:rate] != 0))

    fn weights, value, query, key, key_mask, head_mask, bias, offset, opts ->
      weights_needed? = opts[:output_attentions] || (opts[:mode] == :train and dropout?)
      tensors = Enum.reject([query, key, value, bias], &is_none/1)

      if weights_needed? or not fused_types?(tensors) do
        Grouped.output(weights, value, Keyword.delete(opts, :output_attentions), op)
      else
        [q, k, v] = for t <- [query, key, value], do: Nx.transpose(t, axes: [0, 2, 1, 3])

        attention
        |> attend(q, k, v, Mask.of(q, k, key_mask, bias, offset, attention))
        |> scale_heads(head_mask)
        |> Nx.transpose(axes: [0, 2, 1, 3])
      end
    end
  end

  defp attend(attention, q, k, v, mask) do
    opts = if attention[:scale], do: [scale: attention[:scale]], else: []

    case mask do
      nil ->
        Emily.Fast.scaled_dot_product_attention(q, k, v, opts)

      {:causal, length} ->
        [k, v] = for t <- [k, v], do: Nx.slice_along_axis(t, 0, length, axis: 2)
        Emily.Fast.scaled_dot_product_attention(q, k, v, [causal: true] ++ opts)

      {:cached, key_mask, offset} ->
        CachedAttention.run(q, k, v, key_mask, offset, opts)

      mask ->
        Emily.Fast.scaled_dot_product_attention_with_mask(q, k, v, mask, opts)
    end
  end

  # The layer multiplies the weights of a head, which multiplies the sums just so.
  defp scale_heads(out, mask) when is_none(mask), do: out
  defp scale_heads(out, mask), do: Nx.multiply(out, Nx.reshape(mask, {1, :auto, 1, 1}))
end
