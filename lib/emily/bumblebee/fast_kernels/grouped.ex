defmodule Emily.Bumblebee.FastKernels.Grouped do
  @moduledoc false
  # Grouped keys and values, which several heads of queries share. Bumblebee repeats them for each head
  # before it caches them. Here they are cached once, and what computes attention takes them so, or
  # repeats them.
  #
  # Bumblebee makes the cache for as many heads as there are queries, and a loop's state keeps its shape. So
  # a cache changes its shape where it is known to be new, which it is before Bumblebee.Text.generation/4
  # enters its loop. Any other cache of all heads stays one.

  import Emily.Bumblebee.FastKernels.Layer

  alias Bumblebee.Layers

  @compile {:no_warn_undefined, [Axon, Bumblebee.Utils.Nx]}

  @update {Layers.Decoder, :update_attention_cache}
  @weights {Layers, :attention_weights_impl}
  @output {Layers, :attention_output_impl}

  @doc "The model with every grouped cache that it can have, whose nodes go through `mark`."
  def rewrite(%{nodes: nodes} = model, mark) do
    readers =
      for {_id, node} <- nodes, parent <- node.parent, reduce: %{} do
        readers -> Map.update(readers, parent, [node], &[node | &1])
      end

    {shared, others} =
      nodes
      |> Map.values()
      |> Enum.filter(&repeat?/1)
      |> Enum.split_with(&(plain?(&1) and read_by_attention?(&1, readers)))

    shared = MapSet.new(shared, & &1.id)
    left = {:left, :cache, "its repeated keys or values have other readers"}
    others = MapSet.new(others, & &1.id)

    Axon.map_nodes(model, fn %{id: id, op: op} = node ->
      cond do
        id in shared ->
          %{node | op: fn x, _opts -> x end}

        id in others ->
          mark.(node, left)

        Enum.empty?(shared) ->
          node

        true ->
          case operation(node) do
            @update ->
              if Enum.any?(node.parent, &(&1 in shared)),
                do: mark.(%{node | op: &update(&1, &2, &3, &4, &5, op)}, {:rewritten, :cache}),
                else: node

            @weights ->
              %{node | op: &weights(&1, &2, &3, &4, &5, &6, &7, op)}

            @output ->
              %{node | op: &output(&1, &2, &3, op)}

            _ ->
              node
          end
      end
    end)
  end

  defp repeat?(node) do
    with {Layers, name} <- operation(node) do
      String.starts_with?(Atom.to_string(name), "-repeat_interleave/3-fun-") and
        node.opts[:axis] == 2
    else
      _ -> false
    end
  end

  defp plain?(node), do: node.hooks == []

  # Whether a cache and attention alone read what a node gives, through nodes that pass it on.
  defp read_by_attention?(node, readers),
    do: readers |> Map.get(node.id, []) |> Enum.all?(&attention?(&1, readers))

  defp attention?(%{meta: %{emily: {:rewritten, :attention}}}, _readers), do: true

  defp attention?(reader, readers) do
    passes_on? = reader.op == :optional or reader.op_name == :if_present or element?(reader)

    case operation(reader) do
      @update ->
        plain?(reader) and read_by_attention?(reader, readers)

      @weights ->
        true

      @output ->
        true

      {Layers, :compute_relative_position_buckets} ->
        true

      {Layers.Decoder, name} ->
        String.starts_with?(Atom.to_string(name), "-put_attention_caches/3-")

      _ ->
        passes_on? and plain?(reader) and read_by_attention?(reader, readers)
    end
  end

  # One of the tensors that the update gives.
  defp element?(%{op_name: :nx, op: op}) do
    with {:env, [fun]} when is_function(fun) <- Function.info(op, :env),
         {Layers, name} <- operation(%{op: fun}) do
      String.starts_with?(Atom.to_string(name), "-unwrap_tuple/2-fun-")
    else
      _ -> false
    end
  end

  defp element?(_node), do: false

  defp update(key, value, cache, offset, opts, op) do
    key_heads = Nx.axis_size(cache.key, 2)
    new? = constant(offset) == 0

    cache =
      if new?,
        do: %{cache | key: share(cache.key, key), value: share(cache.value, value)},
        else: cache

    {key, value} =
      if new?, do: {key, value}, else: {repeat(key, key_heads), repeat(value, key_heads)}

    original(op, [key, value, cache, offset, opts])
  end

  # Of the heads that are the same each first one, which are as many as those of `new`.
  defp share(cached, new) do
    {heads, shared} = {Nx.axis_size(cached, 2), Nx.axis_size(new, 2)}

    if heads == shared do
      cached
    else
      Nx.slice(cached, [0, 0, 0, 0], Tuple.to_list(cached.shape),
        strides: [1, 1, div(heads, shared), 1]
      )
    end
  end

  defp weights(query, key, key_mask, head_mask, bias, offset, opts, op) do
    key = repeat(key, Nx.axis_size(query, 2))
    original(op, [query, key, key_mask, head_mask, bias, offset, opts])
  end

  @doc "The sum of values by weight, as `op` computes it of values for each head."
  def output(weights, value, opts, op),
    do: original(op, [weights, repeat(value, Nx.axis_size(weights, 1)), opts])

  # For so many heads, of shape {batch, length, heads, size}.
  defp repeat(x, heads) do
    case div(heads, Nx.axis_size(x, 2)) do
      1 -> x
      times -> Bumblebee.Utils.Nx.repeat_interleave(x, times, axis: 2)
    end
  end
end
