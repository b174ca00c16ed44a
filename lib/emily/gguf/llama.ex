defmodule Emily.GGUF.Llama do
  @moduledoc false
  # Llama's architecture: Bumblebee's specification of it, and where its parameters are in a file.

  import Emily.GGUF.Metadata

  @compile {:no_warn_undefined, Bumblebee}

  # Twice what the largest model has. The time in which Axon and Bumblebee build one grows with the square.
  @most_blocks 256

  @doc "The specification of the model: numbers that fit each other and the tokens."
  def spec(gguf) do
    hidden = fetch!(gguf, "llama.embedding_length", :size)
    {heads, key_value_heads, head} = heads(gguf, hidden)

    refuse(gguf, "llama.expert_count", get(gguf, "llama.expert_count", :count, 0), 0)

    refuse(
      gguf,
      "llama.attention.causal",
      get(gguf, "llama.attention.causal", :boolean, true),
      true
    )

    for {key, kind} <- [
          {"llama.rope.dimension_count", :count},
          {"llama.attention.value_length", :size}
        ],
        do: refuse(gguf, key, get(gguf, key, kind, head), head)

    vocabulary = vocabulary(gguf, hidden)

    Bumblebee.configure(
      Bumblebee.Text.Llama,
      [
        architecture: :for_causal_language_modeling,
        vocab_size: vocabulary,
        max_positions: fetch!(gguf, "llama.context_length", :size),
        hidden_size: hidden,
        intermediate_size: fetch!(gguf, "llama.feed_forward_length", :size),
        attention_head_size: head,
        num_blocks: blocks(gguf),
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads,
        rotary_embedding_base: get(gguf, "llama.rope.freq_base", :positive, 10_000),
        rotary_embedding_scaling_strategy: scaling(gguf),
        layer_norm_epsilon: fetch!(gguf, "llama.attention.layer_norm_rms_epsilon", :positive),
        tie_word_embeddings: not is_map_key(gguf.tensors, "output.weight")
      ] ++ padding(gguf, vocabulary)
    )
  end

  # How many heads there are, of how many keys and values, and the size of one.
  defp heads(gguf, hidden) do
    heads = fetch!(gguf, "llama.attention.head_count", :size)
    key_value_heads = get(gguf, "llama.attention.head_count_kv", :size, heads)
    head = get(gguf, "llama.attention.key_length", :size)

    cond do
      rem(heads, key_value_heads) != 0 ->
        fail(
          gguf,
          "llama.attention.head_count is #{heads}, no multiple of head_count_kv, #{key_value_heads}"
        )

      head == nil and rem(hidden, heads) != 0 ->
        fail(
          gguf,
          "llama.embedding_length is #{hidden}, no multiple of attention.head_count, #{heads}"
        )

      rem(head || div(hidden, heads), 2) != 0 ->
        field = if head, do: "llama.attention.key_length", else: "llama.attention.head_count"
        fail(gguf, "#{field} gives heads of the odd size #{head || div(hidden, heads)}")

      true ->
        {heads, key_value_heads, head || div(hidden, heads)}
    end
  end

  defp vocabulary(gguf, hidden) do
    {rows, columns} = tensor_shape(gguf, "token_embd.weight")

    if columns != hidden,
      do:
        fail(
          gguf,
          "llama.embedding_length is #{hidden}, but token_embd.weight has rows of #{columns}"
        )

    tokens = length(fetch!(gguf, "tokenizer.ggml.tokens", :strings))

    for {key, count} <- [
          {"tokenizer.ggml.tokens", tokens},
          {"llama.vocab_size", get(gguf, "llama.vocab_size", :size, rows)}
        ],
        count != rows,
        do: fail(gguf, "#{key} counts #{count} tokens, but token_embd.weight has #{rows} rows")

    rows
  end

  # A number of blocks that nothing in the file stands for is not believed.
  defp blocks(gguf) do
    count = fetch!(gguf, "llama.block_count", :size)

    present =
      for {name, _} <- gguf.tensors,
          [_, number] <- [Regex.run(~r/^blk\.(\d{1,9})\./, name)],
          reduce: 0,
          do: (most -> max(most, String.to_integer(number) + 1))

    cond do
      count > @most_blocks ->
        fail(gguf, "llama.block_count is #{count}, at most #{@most_blocks}")

      count != present ->
        fail(gguf, "llama.block_count is #{count}, but there are tensors of #{present} blocks")

      true ->
        count
    end
  end

  defp padding(gguf, count) do
    case token_id(gguf, "padding", count) do
      nil -> []
      id -> [pad_token_id: id]
    end
  end

  defp tensor_shape(gguf, name) do
    case gguf.tensors do
      %{^name => %{shape: {_, _} = shape}} -> shape
      _ -> fail(gguf, "there is no tensor #{inspect(name)} of two dimensions")
    end
  end

  defp refuse(_gguf, _key, value, value), do: :ok

  defp refuse(gguf, key, value, expected),
    do: fail(gguf, "#{key} is #{value}; supported: #{expected}")

  # Llama 3's scaling comes as a tensor, rope_freqs.weight, which `parameters/1` does not name.
  defp scaling(gguf) do
    # Older files have the factor of the linear one under a name of its own.
    factor =
      get(gguf, "llama.rope.scaling.factor", :positive) ||
        get(gguf, "llama.rope.scale_linear", :positive)

    case {get(gguf, "llama.rope.scaling.type", :string, if(factor, do: "linear", else: "none")),
          factor} do
      {"none", _} ->
        nil

      {"linear", nil} ->
        fail(gguf, "there is no llama.rope.scaling.factor")

      {"linear", factor} ->
        %{type: :linear, factor: factor}

      {name, _} ->
        fail(gguf, "llama.rope.scaling.type is #{inspect(name)}; supported: none and linear")
    end
  end

  @doc """
  The parameters as `{layer, parameter, tensor's name, its shape, layout}`. Each layout is that of the file:

    * `:same` - as it is
    * `:dense` - rows are outputs, where Axon has them as columns
    * `{:rotary, heads}` - as dense; and in each head, rows that turn together are neighbours, where
      Bumblebee has the first of all pairs before the second
  """
  def parameters(spec) do
    %{vocab_size: vocabulary, hidden_size: hidden} = spec
    output = if spec.tie_word_embeddings, do: "token_embd.weight", else: "output.weight"

    [
      {"embedder.token_embedding", "kernel", "token_embd.weight", {vocabulary, hidden}, :same},
      {"output_norm", "weight", "output_norm.weight", {hidden}, :same},
      {"language_modeling_head.output", "kernel", output, {vocabulary, hidden}, :same}
      | Enum.flat_map(0..(spec.num_blocks - 1), &block(spec, &1))
    ]
  end

  defp block(spec, n) do
    %{hidden_size: hidden, intermediate_size: inner} = spec
    %{num_attention_heads: heads, num_key_value_heads: key_value_heads} = spec
    queries = heads * spec.attention_head_size
    keys = key_value_heads * spec.attention_head_size

    for {layer, parameter, tensor, shape, layout} <- [
          {"self_attention_norm", "weight", "attn_norm", {hidden}, :same},
          {"self_attention.query", "kernel", "attn_q", {queries, hidden}, {:rotary, heads}},
          {"self_attention.key", "kernel", "attn_k", {keys, hidden}, {:rotary, key_value_heads}},
          {"self_attention.value", "kernel", "attn_v", {keys, hidden}, :dense},
          {"self_attention.output", "kernel", "attn_output", {hidden, queries}, :dense},
          {"output_norm", "weight", "ffn_norm", {hidden}, :same},
          {"ffn.gate", "kernel", "ffn_gate", {inner, hidden}, :dense},
          {"ffn.intermediate", "kernel", "ffn_up", {inner, hidden}, :dense},
          {"ffn.output", "kernel", "ffn_down", {hidden, inner}, :dense}
        ] do
      {"decoder.blocks.#{n}.#{layer}", parameter, "blk.#{n}.#{tensor}.weight", shape, layout}
    end
  end

  @doc "The fields that a tensor's shape follows from."
  def fields(name) do
    case Regex.run(~r/(attn_[qkv]|attn_output|ffn_gate|ffn_up|ffn_down)\.weight$/, name) do
      [_, "attn_" <> kind] when kind in ["k", "v"] ->
        ["attention.head_count_kv", "attention.head_count", "attention.key_length"]

      [_, "attn_" <> _] ->
        ["attention.head_count", "attention.key_length"]

      [_, "ffn_" <> _] ->
        ["feed_forward_length"]

      nil ->
        []
    end
    |> Kernel.++(["embedding_length"])
    |> Enum.map(&("llama." <> &1))
  end
end
