if Code.ensure_loaded?(Bumblebee) and Code.ensure_loaded?(Axon) do
  defmodule Emily.GGUF.Llama do
    @moduledoc false
    # Llama's architecture: Bumblebee's specification of it, and where its parameters are in a file.

    import Emily.GGUF.Metadata

    @doc "The specification of the model."
    def spec(gguf) do
      heads = fetch!(gguf, "llama.attention.head_count", :size)
      hidden = fetch!(gguf, "llama.embedding_length", :size)
      head = get(gguf, "llama.attention.key_length", :size, div(hidden, heads))

      refuse(gguf, "llama.expert_count", get(gguf, "llama.expert_count", :count, 0), 0)

      refuse(
        gguf,
        "llama.rope.dimension_count",
        get(gguf, "llama.rope.dimension_count", :count, head),
        head
      )

      value = get(gguf, "llama.attention.value_length", :size, head)
      refuse(gguf, "llama.attention.value_length", value, head)

      Bumblebee.configure(
        Bumblebee.Text.Llama,
        [
          architecture: :for_causal_language_modeling,
          vocab_size: gguf |> tensor_shape("token_embd.weight") |> elem(0),
          max_positions: fetch!(gguf, "llama.context_length", :size),
          hidden_size: hidden,
          intermediate_size: fetch!(gguf, "llama.feed_forward_length", :size),
          attention_head_size: head,
          num_blocks: fetch!(gguf, "llama.block_count", :size),
          num_attention_heads: heads,
          num_key_value_heads: get(gguf, "llama.attention.head_count_kv", :size, heads),
          rotary_embedding_base: get(gguf, "llama.rope.freq_base", :positive, 10_000),
          rotary_embedding_scaling_strategy: scaling(gguf),
          layer_norm_epsilon: fetch!(gguf, "llama.attention.layer_norm_rms_epsilon", :positive),
          tie_word_embeddings: not is_map_key(gguf.tensors, "output.weight")
        ] ++ padding(gguf)
      )
    end

    defp padding(gguf) do
      case get(gguf, "tokenizer.ggml.padding_token_id", :count) do
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
      case get(gguf, "llama.rope.scaling.type", :string, "none") do
        "none" -> nil
        "linear" -> %{type: :linear, factor: fetch!(gguf, "llama.rope.scaling.factor", :positive)}
        name -> fail(gguf, "its rotary scaling is #{inspect(name)}; supported: none and linear")
      end
    end

    @doc """
    The parameters as `{layer, parameter, tensor's name, layout}`. Each layout is that of the file:

      * `:same` - as it is
      * `:dense` - rows are outputs, where Axon has them as columns
      * `{:rotary, heads}` - as dense; and in each head, rows that turn together are neighbours, where
        Bumblebee has the first of all pairs before the second
    """
    def parameters(spec) do
      head =
        if spec.tie_word_embeddings, do: "token_embd.weight", else: "output.weight"

      [
        {"embedder.token_embedding", "kernel", "token_embd.weight", :same},
        {"output_norm", "weight", "output_norm.weight", :same},
        {"language_modeling_head.output", "kernel", head, :same}
        | Enum.flat_map(0..(spec.num_blocks - 1), &block(spec, &1))
      ]
    end

    defp block(spec, n) do
      for {layer, parameter, tensor, layout} <- [
            {"self_attention_norm", "weight", "attn_norm", :same},
            {"self_attention.query", "kernel", "attn_q", {:rotary, spec.num_attention_heads}},
            {"self_attention.key", "kernel", "attn_k", {:rotary, spec.num_key_value_heads}},
            {"self_attention.value", "kernel", "attn_v", :dense},
            {"self_attention.output", "kernel", "attn_output", :dense},
            {"output_norm", "weight", "ffn_norm", :same},
            {"ffn.gate", "kernel", "ffn_gate", :dense},
            {"ffn.intermediate", "kernel", "ffn_up", :dense},
            {"ffn.output", "kernel", "ffn_down", :dense}
          ] do
        {"decoder.blocks.#{n}.#{layer}", parameter, "blk.#{n}.#{tensor}.weight", layout}
      end
    end
  end
end
