defmodule Emily.GGUF.Architectures do
  @moduledoc false
  # GGML's architectures: the model of Bumblebee's that each is, what its specification takes from a file beside what
  # all have (`Emily.GGUF.Spec`), and where its parameters are. The next architecture is a row.

  import Emily.GGUF.Metadata

  alias Bumblebee.Text

  # What Bumblebee has no model of, though it is near to one that it has.
  @near ["gemma2", "qwen2"]

  @doc """
  The row of a file's architecture:

    * `:name` - in the file
    * `:module`, `:architecture` - Bumblebee's
    * `:options` - clauses of `Emily.GGUF.Spec.option/3`
    * `:parameters`, `:block` - those of the model and of one block, as
      `{layer, parameter, tensor, sizes, layout}`. The sizes are those of `Emily.GGUF.Spec.sizes/2`, the layouts those of
      `Emily.GGUF.Parameters`
    * `:optional` - tensors that the options read, where a file has them
    * `:generates` - whether it goes on with a text; the others embed it
  """
  def fetch!(gguf) do
    name = fetch!(gguf, "general.architecture", :string)

    case rows() do
      %{^name => row} ->
        Map.put(row, :name, name)

      rows ->
        supported = rows |> Map.keys() |> Enum.sort() |> Enum.map_join(", ", &inspect/1)
        what = if name in @near, do: ", of which Bumblebee has no model", else: ""

        fail(
          gguf,
          "general.architecture: its architecture is #{inspect(name)}#{what}; supported: #{supported}"
        )
    end
  end

  defp rows do
    %{
      "llama" =>
        decoder(Text.Llama,
          options: [:head, :tied, :scaling],
          block: attention({:rotary, :heads}, {:rotary, :key_value_heads}) ++ gated(),
          optional: ["rope_freqs.weight"]
        ),
      "smollm3" =>
        decoder(Text.SmolLm3,
          options: [:head, :tied, :scaling, :every_fourth_without_rotation],
          block: attention({:rotary, :heads}, {:rotary, :key_value_heads}) ++ gated(),
          optional: ["rope_freqs.weight"]
        ),
      "qwen3" =>
        decoder(Text.Qwen3,
          options: [:head, :tied, :scaling],
          block: attention(:dense, :dense) ++ head_norms(:same) ++ gated(),
          optional: ["rope_freqs.weight"]
        ),
      "gemma" =>
        decoder(Text.Gemma,
          options: [:head, :scaling, :gelu],
          norm: :less_one,
          block: attention(:dense, :dense, :less_one) ++ gated(:less_one)
        ),
      "gemma3" =>
        decoder(Text.Gemma3Text,
          options: [:head, :tied, :unscaled, :local_layers],
          norm: :less_one,
          block:
            attention(:dense, :dense, :less_one) ++
              head_norms(:less_one) ++
              [
                norm("post_attention_norm", "post_attention_norm", :less_one),
                norm("pre_ffn_norm", "ffn_norm", :less_one),
                norm("post_ffn_norm", "post_ffw_norm", :less_one)
              ] ++ gate()
        ),
      "phi3" =>
        decoder(Text.Phi3,
          options: [:silu, :whole_heads, :window, :part_rotated, :longrope],
          block:
            fused_attention() ++
              [
                norm("self_attention_norm", "attn_norm"),
                norm("output_norm", "ffn_norm"),
                part("ffn.gate", "ffn_up", :gate_up, [], :inner),
                part("ffn.intermediate", "ffn_up", :gate_up, [:inner], :inner),
                dense("ffn.output", "ffn_down", :hidden, :inner)
              ],
          optional: ["rope_factors_long.weight", "rope_factors_short.weight"]
        ),
      "bert" =>
        encoder(Text.Bert,
          options: [:token_types],
          parameters: [
            {"embedder.position_embedding", "kernel", "position_embd.weight",
             [:positions, :hidden], :same}
          ],
          block:
            with_biases([
              dense("self_attention.query", "attn_q", :hidden, :hidden),
              dense("self_attention.key", "attn_k", :hidden, :hidden),
              dense("self_attention.value", "attn_v", :hidden, :hidden),
              dense("self_attention.output", "attn_output", :hidden, :hidden),
              dense("ffn.intermediate", "ffn_up", :inner, :hidden),
              dense("ffn.output", "ffn_down", :hidden, :inner)
            ])
        ),
      "nomic-bert" =>
        encoder(Text.NomicBert,
          options: [:token_types, :rotated_without_biases, :rounded_inner],
          block:
            fused_attention() ++
              [
                dense("ffn.up", "ffn_up", :inner, :hidden),
                dense("ffn.gate", "ffn_gate", :inner, :hidden),
                dense("ffn.down", "ffn_down", :hidden, :inner)
              ]
        )
    }
  end

  ## Kinds of models

  defp decoder(module, opts) do
    norm = {"output_norm", "weight", "output_norm.weight", [:hidden], opts[:norm] || :same}

    %{
      module: module,
      architecture: :for_causal_language_modeling,
      generates: true,
      options: [:decoder | opts[:options]],
      parameters: [
        {"embedder.token_embedding", "kernel", "token_embd.weight", [:vocabulary, :hidden],
         :same},
        {"language_modeling_head.output", "kernel", :output, [:vocabulary, :hidden], :same},
        norm
      ],
      blocks: "decoder.blocks",
      block: opts[:block],
      optional: opts[:optional] || []
    }
  end

  # Converters leave out the layer behind the first token's state, and so does the model (`Emily.GGUF.Bumblebee`).
  defp encoder(module, opts) do
    norms = [
      {"embedder.norm", "token_embd_norm"},
      {"self_attention_norm", "attn_output_norm"},
      {"output_norm", "layer_output_norm"}
    ]

    [embedder | block] =
      for {layer, tensor} <- norms do
        for {parameter, suffix} <- [{"gamma", "weight"}, {"beta", "bias"}],
            do: {layer, parameter, "#{tensor}.#{suffix}", [:hidden], :same}
      end

    %{
      module: module,
      architecture: :base,
      generates: false,
      options: [:encoder | opts[:options]],
      parameters:
        [
          {"embedder.token_embedding", "kernel", "token_embd.weight", [:vocabulary, :hidden],
           :same},
          {"embedder.token_type_embedding", "kernel", "token_types.weight",
           [:token_types, :hidden], :same}
        ] ++ embedder ++ (opts[:parameters] || []),
      blocks: "encoder.blocks",
      block: Enum.concat(block) ++ opts[:block],
      optional: []
    }
  end

  ## Pieces of blocks

  defp attention(query, key, norm \\ :same) do
    [
      norm("self_attention_norm", "attn_norm", norm),
      dense("self_attention.query", "attn_q", :queries, :hidden, query),
      dense("self_attention.key", "attn_k", :keys, :hidden, key),
      dense("self_attention.value", "attn_v", :keys, :hidden),
      dense("self_attention.output", "attn_output", :hidden, :queries)
    ]
  end

  defp fused_attention do
    [
      part("self_attention.query", "attn_qkv", :queries_keys_values, [], :queries),
      part("self_attention.key", "attn_qkv", :queries_keys_values, [:queries], :keys),
      part("self_attention.value", "attn_qkv", :queries_keys_values, [:queries, :keys], :keys),
      dense("self_attention.output", "attn_output", :hidden, :queries)
    ]
  end

  defp head_norms(layout) do
    for {layer, tensor} <- [{"query_norm", "attn_q_norm"}, {"key_norm", "attn_k_norm"}],
        do: {"self_attention." <> layer, "weight", tensor <> ".weight", [:head], layout}
  end

  defp gated(norm \\ :same), do: [norm("output_norm", "ffn_norm", norm) | gate()]

  defp gate do
    [
      dense("ffn.gate", "ffn_gate", :inner, :hidden),
      dense("ffn.intermediate", "ffn_up", :inner, :hidden),
      dense("ffn.output", "ffn_down", :hidden, :inner)
    ]
  end

  defp norm(layer, tensor, layout \\ :same),
    do: {layer, "weight", tensor <> ".weight", [:hidden], layout}

  defp dense(layer, tensor, rows, columns, layout \\ :dense),
    do: {layer, "kernel", tensor <> ".weight", [rows, columns], layout}

  # The rows behind others of a tensor that several layers share.
  defp part(layer, tensor, rows, before, size),
    do: {layer, "kernel", tensor <> ".weight", [rows, :hidden], {:part, before, size}}

  defp with_biases(dense) do
    biases =
      for {layer, "kernel", tensor, [rows, _], _} <- dense,
          do: {layer, "bias", String.replace_suffix(tensor, "weight", "bias"), [rows], :same}

    dense ++ biases
  end
end
