defmodule Emily.Bumblebee.FastKernels.Rotary do
  @moduledoc false
  # Rotary embeddings of a query and a key, {batch, positions, heads, size} each.
  #
  # The kernel counts positions up from an offset, while the model gives each token its own, which
  # padding makes differ from row to row. So every token becomes a batch of one position.

  import Emily.Bumblebee.FastKernels.Layer

  def rewrite(node, _nodes) do
    case {operation(node), node} do
      {{Bumblebee.Layers, :apply_rotary_embedding}, %{parent: [_, _, _, _], op: op}} ->
        run = fn query, key, ids, mask, opts -> run(query, key, ids, mask, opts, op) end
        {:rewritten, :rope, %{node | op: run}}

      _ ->
        nil
    end
  end

  defp run(query, key, ids, mask, opts, op) do
    size = opts[:size]

    if rem(size, 2) == 0 and fused_types?([query, key]) and
         Enum.all?([query, key], &(Nx.axis_size(&1, -1) == size)) do
      length = length(ids, mask)
      {frequencies, scale, factor} = frequencies(length, opts)
      table = Nx.tensor(frequencies, type: :f32, backend: Nx.BinaryBackend)
      # The layer looks its angles up by position, which keeps them within the sequence.
      ids = ids |> Nx.as_type(:s32) |> Nx.clip(0, length - 1)

      {rotate(query, ids, table, scale, factor), rotate(key, ids, table, scale, factor)}
    else
      original(op, [query, key, ids, mask, opts])
    end
  end

  # With a cache the position ids are those of the new tokens, the mask is of full length.
  defp length(ids, mask) when is_none(mask), do: Nx.axis_size(ids, 1)
  defp length(_ids, mask), do: Nx.axis_size(mask, 1)

  defp rotate(x, ids, table, scale, factor) do
    {batch, positions, heads, size} = x.shape
    offset = ids |> Nx.broadcast({batch, positions}) |> Nx.reshape({batch * positions})

    x
    |> Nx.reshape({batch * positions, heads, 1, size})
    |> Emily.Fast.rope_with_freqs(offset, table, dims: size, scale: scale)
    |> then(&if(factor == 1, do: &1, else: Nx.multiply(&1, factor)))
    |> Nx.reshape(x.shape)
  end

  # The inverse frequencies, what positions are multiplied by, and what the result is: the
  # strategies of Bumblebee.Layers, whose names are those of Hugging Face's `rope_scaling`.
  defp frequencies(length, opts) do
    base = opts[:base] || 10_000
    size = opts[:size]
    max = opts[:max_positions] || 2048

    case opts[:scaling_strategy] do
      %{type: :linear, factor: factor} ->
        {progression(base, size), 1 / factor, 1}

      %{type: :dynamic, factor: factor} when length > max ->
        base = :math.pow(base * (factor * length / max - (factor - 1)), size / (size - 2))
        {progression(base, size), 1, 1}

      %{type: :longrope, original_max_positions: original} = strategy ->
        factors =
          if length > original, do: strategy.long_factor, else: strategy.short_factor

        frequencies = Enum.zip_with(progression(base, size), factors, &(&1 / &2))
        {frequencies, 1, magnitude(max / original, original)}

      %{type: :llama3} = strategy ->
        {Enum.map(progression(base, size), &llama3(&1, strategy)), 1, 1}

      _ ->
        {progression(base, size), 1, 1}
    end
  end

  defp progression(base, size),
    do: for(i <- 0..(div(size, 2) - 1), do: :math.pow(base, -2 * i / size))

  defp magnitude(scale, _original) when scale <= 1, do: 1
  defp magnitude(scale, original), do: :math.sqrt(1 + :math.log(scale) / :math.log(original))

  # Long waves are slowed down, short ones are not, those between them are in between.
  defp llama3(frequency, strategy) do
    %{factor: factor, low_frequency_factor: low, high_frequency_factor: high} = strategy
    waves = strategy.original_max_positions * frequency / (2 * :math.pi())

    cond do
      waves > high ->
        frequency

      waves < low ->
        frequency / factor

      true ->
        smooth = (waves - low) / (high - low)
        (1 - smooth) * frequency / factor + smooth * frequency
    end
  end
end
