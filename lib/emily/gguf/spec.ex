defmodule Emily.GGUF.Spec do
  @moduledoc false
  # Bumblebee's specification of a file's model: numbers that fit each other, the tensors and the tokens.

  import Emily.GGUF.Metadata

  alias Emily.GGUF

  @compile {:no_warn_undefined, [Bumblebee, Bumblebee.Layers]}

  # Twice what the largest model has. The time in which Axon and Bumblebee build one grows with the square.
  @most_blocks 256

  # The fields that a size follows from.
  @fields %{
    queries: ["attention.head_count", "attention.key_length"],
    keys: ["attention.head_count_kv", "attention.head_count", "attention.key_length"],
    head: ["attention.key_length", "attention.head_count"],
    queries_keys_values: ["attention.head_count", "attention.head_count_kv"],
    inner: ["feed_forward_length"],
    gate_up: ["feed_forward_length"],
    hidden: ["embedding_length"],
    positions: ["context_length"],
    vocabulary: [],
    token_types: []
  }

  @doc "The sizes of the model by their names in `Emily.GGUF.Architectures`."
  def sizes(gguf, row) do
    hidden = field!(gguf, row, "embedding_length", :size)
    {heads, key_value_heads, head} = heads(gguf, row, hidden)
    refuse(gguf, row, "expert_count", :count, 0)
    refuse(gguf, row, "attention.causal", :boolean, row.generates, true)
    refuse(gguf, row, "attention.value_length", :size, head)

    inner = field!(gguf, row, "feed_forward_length", :size)
    vocabulary = vocabulary(gguf, row, hidden)
    {queries, keys} = {heads * head, key_value_heads * head}

    %{
      hidden: hidden,
      heads: heads,
      key_value_heads: key_value_heads,
      head: head,
      queries: queries,
      keys: keys,
      queries_keys_values: queries + 2 * keys,
      inner: inner,
      gate_up: 2 * inner,
      vocabulary: vocabulary,
      positions: field!(gguf, row, "context_length", :size),
      token_types: rows(gguf, "token_types.weight"),
      blocks: blocks(gguf, row),
      row: row
    }
  end

  @doc "The names of the fields that a shape of these sizes follows from."
  def fields(row, sizes),
    do:
      for(
        size <- Enum.sort_by(sizes, &(&1 == :hidden)),
        field <- @fields[size],
        do: key(row, field)
      )

  def spec(gguf, row, sizes) do
    options = [
      architecture: row.architecture,
      vocab_size: sizes.vocabulary,
      max_positions: sizes.positions,
      hidden_size: sizes.hidden,
      intermediate_size: sizes.inner,
      num_blocks: sizes.blocks,
      num_attention_heads: sizes.heads
    ]

    Bumblebee.configure(
      row.module,
      Enum.reduce(row.options, options, &(&2 ++ option(&1, gguf, sizes)))
    )
  end

  ## Options of a row

  defp option(:decoder, gguf, %{row: row} = sizes) do
    for name <- ["attn_logit_softcapping", "final_logit_softcapping"],
        value = field(gguf, row, name, :positive),
        do: fail(gguf, "#{key(row, name)} is #{value}, which Bumblebee's model has not")

    padding = token_id(gguf, "padding", sizes.vocabulary)

    [
      num_key_value_heads: sizes.key_value_heads,
      rotary_embedding_base: base(gguf, row),
      layer_norm_epsilon: field!(gguf, row, "attention.layer_norm_rms_epsilon", :positive)
    ] ++ if(padding, do: [pad_token_id: padding], else: [])
  end

  defp option(:encoder, gguf, %{row: row}),
    do: [layer_norm_epsilon: field!(gguf, row, "attention.layer_norm_epsilon", :positive)]

  defp option(:head, gguf, %{row: row, head: head}) do
    refuse(gguf, row, "rope.dimension_count", :count, head)
    [attention_head_size: head]
  end

  # Bumblebee has no other size of heads there.
  defp option(:whole_heads, gguf, %{row: row} = sizes) do
    if sizes.queries != sizes.hidden do
      fail(
        gguf,
        "#{key(row, "attention.key_length")} is #{sizes.head}; supported: " <>
          "embedding_length / attention.head_count"
      )
    end

    []
  end

  defp option(:tied, gguf, _sizes),
    do: [tie_word_embeddings: not is_map_key(gguf.tensors, "output.weight")]

  defp option(:scaling, gguf, %{row: row} = sizes) do
    strategy =
      case {scaling(gguf, row), factors(gguf, "rope_freqs.weight", sizes.head)} do
        {nil, nil} ->
          nil

        {nil, factors} ->
          # Llama 3's scaling: each frequency is divided by a number. Bumblebee's LongRoPE does just that, and scales
          # nothing else where the model was trained for all its positions.
          %{
            type: :longrope,
            short_factor: factors,
            long_factor: factors,
            original_max_positions: sizes.positions
          }

        {linear, nil} ->
          linear

        {_, _} ->
          fail(
            gguf,
            "#{key(row, "rope.scaling.type")} is \"linear\", but there is rope_freqs.weight"
          )
      end

    [rotary_embedding_scaling_strategy: strategy]
  end

  # Bumblebee would scale the layers with a window too, which are trained without.
  defp option(:unscaled, gguf, %{row: row}) do
    if scaling(gguf, row),
      do: fail(gguf, "#{key(row, "rope.scaling.type")} is \"linear\"; supported: none")

    []
  end

  defp option(:silu, _gguf, _sizes), do: [activation: :silu]

  # By its name, Bumblebee's Gemma looks for the function where it is not.
  defp option(:gelu, _gguf, _sizes), do: [activation: &Bumblebee.Layers.gelu_approx_tanh/2]

  defp option(:every_fourth_without_rotation, _gguf, %{blocks: blocks}),
    do: [rotary_embedding_enabled: for(block <- 1..blocks, do: rem(block, 4) != 0)]

  defp option(:window, gguf, sizes), do: [attention_window_size: window(gguf, sizes)]

  # Of a number of layers, the last sees everything.
  defp option(:local_layers, gguf, %{row: row, blocks: blocks} = sizes) do
    window = window(gguf, sizes)

    local =
      case window && pattern(gguf, row) do
        nil -> List.duplicate(false, blocks)
        number when is_integer(number) -> for block <- 1..blocks, do: rem(block, number) != 0
        list when length(list) == blocks -> list
        list -> fail(gguf, "#{pattern_key(row)} has #{length(list)} items for #{blocks} blocks")
      end

    # As Gemma 3 with 27 billion parameters, which no field of a file says.
    scale = if blocks == 62, do: div(sizes.hidden, sizes.heads), else: sizes.head

    [
      layer_types:
        for(local? <- local, do: if(local?, do: :sliding_attention, else: :full_attention)),
      attention_window_size: window || sizes.positions,
      attention_scale_base: scale,
      rotary_embedding_base_local: field(gguf, row, "rope.freq_base_swa", :positive, 10_000)
    ]
  end

  defp option(:part_rotated, gguf, sizes) do
    %{head: head} = sizes
    rotated = rotated(gguf, sizes)

    # Bumblebee rounds the product with the head's size down.
    part =
      Enum.find([rotated / head, (rotated + 0.5) / head], &(trunc(head * &1) == rotated))

    [rotary_embedding_percentage: part]
  end

  defp option(:longrope, gguf, %{row: row} = sizes) do
    [long, short] =
      for length <- ["long", "short"],
          do: factors(gguf, "rope_factors_#{length}.weight", rotated(gguf, sizes))

    case {scaling(gguf, row, ["longrope"]), long, short} do
      {nil, nil, nil} ->
        [rotary_embedding_scaling_strategy: nil]

      {scaling, long, short} when scaling in [nil, "longrope"] and long != nil and short != nil ->
        original = field!(gguf, row, "rope.scaling.original_context_length", :size)
        attention_factor(gguf, row, sizes.positions, original)

        strategy = %{
          type: :longrope,
          short_factor: short,
          long_factor: long,
          original_max_positions: original
        }

        [rotary_embedding_scaling_strategy: strategy]

      _ ->
        fail(
          gguf,
          "#{key(row, "rope.scaling.type")}: LongRoPE takes rope_factors_long.weight and rope_factors_short.weight"
        )
    end
  end

  defp option(:token_types, _gguf, %{token_types: count}), do: [max_token_types: count]

  defp option(:rotated_without_biases, gguf, %{row: row}) do
    if scaling(gguf, row),
      do: fail(gguf, "#{key(row, "rope.scaling.type")} is \"linear\"; supported: none")

    [rotary_embedding_base: base(gguf, row), ffn_gate_bias: false, ffn_output_bias: false]
  end

  defp option(:rounded_inner, gguf, %{row: row, inner: inner}) do
    if rem(inner, 256) != 0,
      do: fail(gguf, "#{key(row, "feed_forward_length")} is #{inner}, no multiple of 256")

    []
  end

  ## Fields

  defp key(row, name), do: "#{row.name}.#{name}"
  defp field!(gguf, row, name, kind), do: fetch!(gguf, key(row, name), kind)
  defp field(gguf, row, name, kind, default \\ nil), do: get(gguf, key(row, name), kind, default)

  defp refuse(gguf, row, name, kind, expected, default \\ nil) do
    default = if default == nil, do: expected, else: default

    case field(gguf, row, name, kind, default) do
      ^expected -> :ok
      value -> fail(gguf, "#{key(row, name)} is #{value}; supported: #{expected}")
    end
  end

  defp base(gguf, row), do: field(gguf, row, "rope.freq_base", :positive, 10_000)

  # How many heads there are, of how many keys and values, and the size of one.
  defp heads(gguf, row, hidden) do
    heads = field!(gguf, row, "attention.head_count", :size)
    key_value_heads = field(gguf, row, "attention.head_count_kv", :size, heads)
    head = field(gguf, row, "attention.key_length", :size)

    cond do
      rem(heads, key_value_heads) != 0 ->
        fail(
          gguf,
          "#{key(row, "attention.head_count")} is #{heads}, no multiple of head_count_kv, #{key_value_heads}"
        )

      not row.generates and key_value_heads != heads ->
        fail(
          gguf,
          "#{key(row, "attention.head_count_kv")} is #{key_value_heads}; supported: #{heads}"
        )

      head == nil and rem(hidden, heads) != 0 ->
        fail(
          gguf,
          "#{key(row, "embedding_length")} is #{hidden}, no multiple of attention.head_count, #{heads}"
        )

      rem(head || div(hidden, heads), 2) != 0 ->
        field = if head, do: "attention.key_length", else: "attention.head_count"
        fail(gguf, "#{key(row, field)} gives heads of the odd size #{head || div(hidden, heads)}")

      true ->
        {heads, key_value_heads, head || div(hidden, heads)}
    end
  end

  defp vocabulary(gguf, row, hidden) do
    {rows, columns} = tensor_shape(gguf, "token_embd.weight")

    if columns != hidden,
      do:
        fail(
          gguf,
          "#{key(row, "embedding_length")} is #{hidden}, but token_embd.weight has rows of #{columns}"
        )

    tokens = length(fetch!(gguf, "tokenizer.ggml.tokens", :strings))

    for {key, count} <- [
          {"tokenizer.ggml.tokens", tokens},
          {key(row, "vocab_size"), field(gguf, row, "vocab_size", :size, rows)}
        ],
        count != rows,
        do: fail(gguf, "#{key} counts #{count} tokens, but token_embd.weight has #{rows} rows")

    rows
  end

  # A number of blocks that nothing in the file stands for is not believed.
  defp blocks(gguf, row) do
    count = field!(gguf, row, "block_count", :size)

    present =
      for {name, _} <- gguf.tensors,
          [_, number] <- [Regex.run(~r/^blk\.(\d{1,9})\./, name)],
          reduce: 0,
          do: (most -> max(most, String.to_integer(number) + 1))

    name = key(row, "block_count")

    cond do
      count > @most_blocks ->
        fail(gguf, "#{name} is #{count}, at most #{@most_blocks}")

      count != present ->
        fail(gguf, "#{name} is #{count}, but there are tensors of #{present} blocks")

      true ->
        count
    end
  end

  defp tensor_shape(gguf, name) do
    case gguf.tensors do
      %{^name => %{shape: {_, _} = shape}} -> shape
      _ -> fail(gguf, "there is no tensor #{inspect(name)} of two dimensions")
    end
  end

  defp rows(gguf, name) do
    case gguf.tensors do
      %{^name => %{shape: {rows, _}}} -> rows
      _ -> 1
    end
  end

  # Bumblebee's window has its own position and so many before; a file's has so many in all.
  defp window(gguf, %{row: row}) do
    window = field(gguf, row, "attention.sliding_window", :count, 0)
    if window > 0, do: window - 1
  end

  defp pattern_key(row), do: key(row, "attention.sliding_window_pattern")

  defp pattern(gguf, row) do
    case gguf.metadata[pattern_key(row)] do
      nil -> 6
      list when is_list(list) -> get(gguf, pattern_key(row), :booleans)
      _ -> get(gguf, pattern_key(row), :size)
    end
  end

  defp rotated(gguf, %{row: row, head: head}) do
    case field(gguf, row, "rope.dimension_count", :size, head) do
      rotated when rotated <= head and rem(rotated, 2) == 0 ->
        rotated

      other ->
        fail(
          gguf,
          "#{key(row, "rope.dimension_count")} is #{other}; supported: even, at most #{head}"
        )
    end
  end

  # The factors of a tensor by which frequencies are divided.
  defp factors(gguf, name, rotated) do
    case gguf.tensors do
      %{^name => %{shape: {count}, type: type}} when count == div(rotated, 2) and type == :f32 ->
        factors = gguf |> GGUF.tensor(name) |> Nx.to_list()

        if Enum.all?(factors, &positive?/1),
          do: factors,
          else: fail(gguf, "the tensor #{inspect(name)} has factors that are no positive numbers")

      %{^name => %{shape: shape, type: type}} ->
        fail(
          gguf,
          "the tensor #{inspect(name)} is #{type} of the shape #{inspect(shape)}, expected f32 of {#{div(rotated, 2)}}"
        )

      _ ->
        nil
    end
  end

  # The linear scaling, or the name of another that is known; nil without.
  defp scaling(gguf, row, known \\ []) do
    # Older files have the factor of the linear one under a name of its own.
    factor =
      field(gguf, row, "rope.scaling.factor", :positive) ||
        field(gguf, row, "rope.scale_linear", :positive)

    type =
      field(gguf, row, "rope.scaling.type", :string, if(factor, do: "linear", else: "none"))

    cond do
      type == "none" ->
        nil

      type in known ->
        type

      type == "linear" and factor == nil ->
        fail(gguf, "there is no #{key(row, "rope.scaling.factor")}")

      type == "linear" ->
        %{type: :linear, factor: factor}

      true ->
        names = Enum.join(["none", "linear" | known], ", ")
        fail(gguf, "#{key(row, "rope.scaling.type")} is #{inspect(type)}; supported: #{names}")
    end
  end

  # Bumblebee computes it of the two lengths.
  defp attention_factor(gguf, row, positions, original) do
    scale = positions / original

    expected =
      if scale > 1.0, do: :math.sqrt(1 + :math.log(scale) / :math.log(original)), else: 1.0

    actual = field(gguf, row, "rope.scaling.attn_factor", :positive, expected)

    if abs(actual - expected) > 1.0e-4 * expected do
      fail(
        gguf,
        "#{key(row, "rope.scaling.attn_factor")} is #{actual}; supported: #{expected}, of its lengths"
      )
    end
  end
end
