defmodule Emily.Bumblebee.FastKernels.Mask do
  @moduledoc false
  # What a query may see, as the attention kernels take it.

  import Emily.Bumblebee.FastKernels.Layer

  @doc """
  nil where every key is seen; `{:causal, length}` where query `i` sees the keys up to `i`, of
  which there are `length`; `{:cached, key_mask, offset}` where it sees those up to `offset + i` that
  are no padding, both of which are data; else an additive mask.

  `q` and `k` are `{batch, heads, length, size}`, the others are the inputs of the layer.
  """
  def of(q, k, key_mask, bias, offset, attention) do
    {q_len, k_len} = {Nx.axis_size(q, 2), Nx.axis_size(k, 2)}
    causal? = attention[:causal] == true
    plain? = attention[:window_size] == nil and is_none(bias)
    filled = if plain? and causal?, do: filled(key_mask, offset, q_len, k_len)

    cond do
      plain? and not causal? and seen?(key_mask, k_len) ->
        nil

      filled ->
        {:causal, filled}

      plain? and causal? and cache?(key_mask, offset, {Nx.axis_size(q, 0), k_len}) ->
        {:cached, key_mask, offset}

      true ->
        seen = seen(key_mask, positions(q_len, k_len, offset, causal?, attention[:window_size]))
        additive(seen, bias, q.type)
    end
  end

  defp cache?(%Nx.Tensor{type: {kind, _}} = key_mask, %Nx.Tensor{shape: {}}, shape),
    do: kind in [:s, :u] and key_mask.shape == shape

  defp cache?(_key_mask, _offset, _shape), do: false

  # How many keys the last query sees, where that is known and none of them is padding.
  defp filled(key_mask, offset, q_len, k_len) do
    start = number(offset)
    filled = start && start + q_len
    if filled && filled <= k_len && seen?(key_mask, filled), do: filled
  end

  # Whether so many keys from the first on are known to be no padding: a cache has what was put
  # into it, one piece behind the other.
  defp seen?(mask, _length) when is_none(mask), do: true
  defp seen?(_mask, 0), do: true

  defp seen?(mask, length) do
    case without_metadata(mask) do
      %{shape: {batch, size}, data: %{op: :put_slice, args: [before, [_, start], new]}} ->
        {rows, piece} = Nx.shape(new)
        start = number(start)

        # One that would reach beyond the end is put elsewhere.
        start && rows == batch && start + piece <= size &&
          length in (start + 1)..(start + piece)//1 && ones?(new) && seen?(before, start)

      mask ->
        ones?(mask)
    end
  end

  defp without_metadata(%{data: %{op: :metadata, args: [inner, _]}}),
    do: without_metadata(inner)

  defp without_metadata(tensor), do: tensor

  defp ones?(mask), do: constant(mask) not in [nil, 0]

  # Without a cache, queries start where keys do.
  defp number(offset) when is_none(offset), do: 0
  defp number(number) when is_integer(number), do: number
  defp number(tensor), do: constant(tensor)

  # Which keys a query sees by where they stand: {1, 1, q_len, k_len}, nil for all.
  defp positions(_q_len, _k_len, _offset, false, nil), do: nil

  defp positions(q_len, k_len, offset, causal?, window) do
    query = query_positions(q_len, offset)
    key = Nx.iota({1, 1, 1, k_len}, axis: 3)
    {left, right} = window || {nil, nil}

    # Nothing after the query, or no further than the window reaches.
    seen =
      if causal?,
        do: Nx.less_equal(key, query),
        else: Nx.less_equal(Nx.subtract(key, query), right)

    if left, do: Nx.logical_and(seen, Nx.less_equal(Nx.subtract(query, key), left)), else: seen
  end

  # Each operation counts here, in a step of a loop that decodes: one query needs no counting.
  defp query_positions(1, offset) when is_none(offset), do: 0
  defp query_positions(1, offset), do: offset

  defp query_positions(q_len, offset) when is_none(offset),
    do: Nx.iota({1, 1, q_len, 1}, axis: 2)

  defp query_positions(q_len, offset), do: Nx.add(Nx.iota({1, 1, q_len, 1}, axis: 2), offset)

  defp seen(key_mask, positions) do
    case {rank4(key_mask), positions} do
      {nil, positions} -> positions
      {mask, nil} -> mask
      {mask, positions} -> Nx.logical_and(mask, positions)
    end
  end

  # For each key of a batch, or for each head and query too.
  defp rank4(mask) when is_none(mask), do: nil
  defp rank4(%{shape: {batch, k_len}} = mask), do: Nx.reshape(mask, {batch, 1, 1, k_len})
  defp rank4(mask), do: mask

  # The least finite number hides a key, and leaves a row that hides all of them the mean of the
  # values.
  defp additive(nil, bias, _type), do: bias

  defp additive(seen, bias, type) when is_none(bias),
    do: Nx.select(seen, Nx.tensor(0.0, type: type), Nx.Constants.min_finite(type))

  defp additive(seen, bias, type) do
    shape =
      Enum.zip_with(Tuple.to_list(seen.shape), Tuple.to_list(bias.shape), &max/2)
      |> List.to_tuple()

    seen |> Nx.broadcast(shape) |> Nx.select(bias, Nx.Constants.min_finite(type))
  end
end
