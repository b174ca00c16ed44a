# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.GGUF.LlamaTest do
    # A small Llama of random parameters, written as llama.cpp's converter writes it, and read back.
    use ExUnit.Case, async: true

    import Emily.GGUFFile

    alias Emily.GGUF

    @moduletag :tmp_dir

    @tensors %{
      "self_attention_norm" => "attn_norm",
      "self_attention.query" => "attn_q",
      "self_attention.key" => "attn_k",
      "self_attention.value" => "attn_v",
      "self_attention.output" => "attn_output",
      "output_norm" => "ffn_norm",
      "ffn.gate" => "ffn_gate",
      "ffn.intermediate" => "ffn_up",
      "ffn.output" => "ffn_down"
    }

    setup do
      Nx.default_backend(Nx.BinaryBackend)

      spec =
        Bumblebee.configure(Bumblebee.Text.Llama,
          architecture: :for_causal_language_modeling,
          vocab_size: 5,
          hidden_size: 12,
          intermediate_size: 7,
          num_blocks: 2,
          num_attention_heads: 3,
          num_key_value_heads: 1,
          attention_head_size: 4,
          max_positions: 32,
          layer_norm_epsilon: 0.5
        )

      {init, _} = spec |> Bumblebee.build_model() |> Axon.build()
      params = init.(%{"input_ids" => Nx.template({1, 1}, :s64)}, Axon.ModelState.empty())
      %{spec: spec, data: params.data}
    end

    defp metadata do
      [
        {"general.architecture", :string, "llama"},
        {"llama.block_count", :u32, 2},
        {"llama.context_length", :u32, 32},
        {"llama.embedding_length", :u32, 12},
        {"llama.feed_forward_length", :u32, 7},
        {"llama.attention.head_count", :u32, 3},
        {"llama.attention.head_count_kv", :u32, 1},
        {"llama.attention.layer_norm_rms_epsilon", :f32, 0.5},
        {"llama.rope.freq_base", :f32, 500.0},
        {"llama.rope.scaling.type", :string, "linear"},
        {"llama.rope.scaling.factor", :f32, 2.0},
        {"tokenizer.ggml.model", :string, "gpt2"},
        {"tokenizer.ggml.pre", :string, "gpt-2"},
        {"tokenizer.ggml.tokens", {:array, :string}, ["a", "b", "ab", "<s>", "</s>"]},
        {"tokenizer.ggml.token_type", {:array, :s32}, [1, 1, 1, 3, 3]},
        {"tokenizer.ggml.merges", {:array, :string}, ["a b"]},
        {"tokenizer.ggml.eos_token_id", :u32, 4},
        {"tokenizer.ggml.eot_token_id", :u32, 3}
      ]
    end

    defp tensors(spec, data) do
      for {layer, params} <- data, {parameter, tensor} <- params do
        name = name(layer)
        tensor = stored(name, parameter, tensor, spec)
        sizes = tensor.shape |> Tuple.to_list() |> Enum.reverse()
        {name, 0, sizes, Nx.to_binary(tensor)}
      end
    end

    defp name("embedder.token_embedding"), do: "token_embd.weight"
    defp name("output_norm"), do: "output_norm.weight"
    defp name("language_modeling_head.output"), do: "output.weight"

    defp name("decoder.blocks." <> rest) do
      [block, layer] = String.split(rest, ".", parts: 2)
      "blk.#{block}.#{@tensors[layer]}.weight"
    end

    defp stored("blk." <> _ = name, "kernel", tensor, spec) do
      rows = Nx.transpose(tensor)

      cond do
        name =~ "attn_q" -> permuted(rows, spec.num_attention_heads)
        name =~ "attn_k" -> permuted(rows, spec.num_key_value_heads)
        true -> rows
      end
    end

    defp stored(_name, _parameter, tensor, _spec), do: tensor

    # What llama.cpp's convert_hf_to_gguf.py does to the rows of queries and keys.
    defp permuted(rows, heads) do
      {count, columns} = rows.shape

      rows
      |> Nx.reshape({heads, 2, div(count, heads * 2), columns})
      |> Nx.transpose(axes: [0, 2, 1, 3])
      |> Nx.reshape({count, columns})
    end

    test "every parameter comes back, each to its layer", %{tmp_dir: folder} = context do
      path = metadata() |> bytes(tensors(context.spec, context.data)) |> write(folder)
      test = self()
      progress = &send(test, {:progress, &1, &2})
      {:ok, loaded} = GGUF.load_bumblebee(path, progress: progress)
      %{model_info: %{params: params, spec: spec}, generation_config: config} = loaded

      assert Map.keys(params.data) == Map.keys(context.data)

      for {layer, expected} <- context.data, {name, tensor} <- expected do
        actual = params.data[layer][name]
        assert %Emily.Backend{} = actual.data
        assert {actual.shape, actual.type} == {tensor.shape, tensor.type}
        assert {layer, Nx.to_binary(actual)} == {layer, Nx.to_binary(tensor)}
      end

      assert spec.rotary_embedding_base == 500.0
      assert spec.rotary_embedding_scaling_strategy == %{type: :linear, factor: 2.0}
      assert spec.layer_norm_epsilon == 0.5
      assert spec.attention_head_size == 4
      refute spec.tie_word_embeddings
      assert config.eos_token_id == [4, 3]
      assert config.bos_token_id == nil

      total = context.data |> Nx.to_template() |> bytes_of()
      assert_received {:progress, ^total, ^total}
      assert_received {:progress, first, ^total} when first < total
    end

    defp bytes_of(data) do
      Enum.sum(for {_, params} <- data, {_, tensor} <- params, do: Nx.byte_size(tensor))
    end

    test "a type is that of every parameter", %{tmp_dir: folder} = context do
      path = metadata() |> bytes(tensors(context.spec, context.data)) |> write(folder)
      {:ok, %{model_info: %{params: params}}} = GGUF.load_bumblebee(path, type: :bf16)
      for {_, layer} <- params.data, {_, tensor} <- layer, do: assert(tensor.type == {:bf, 16})
    end

    test "tensors that are missing, too many or of another shape are refused", context do
      tensors = tensors(context.spec, context.data)

      for {tensors, message} <- [
            {List.keydelete(tensors, "blk.1.ffn_up.weight", 0),
             ~r/no tensor blk.1.ffn_up.weight/},
            {[{"rope_freqs.weight", 0, [1], <<0::32>>} | tensors],
             ~r/"rope_freqs.weight" is f32 of the shape \{1\}, expected f32 of \{2\}/},
            {List.keyreplace(
               tensors,
               "output_norm.weight",
               0,
               {"output_norm.weight", 0, [1], <<0::32>>}
             ), ~r/"output_norm.weight" has the shape \{1\}, expected \{12\} by llama.embedding/},
            {List.keyreplace(
               tensors,
               "blk.0.attn_q.weight",
               0,
               {"blk.0.attn_q.weight", 0, [1, 7], <<0::224>>}
             ), ~r/"blk.0.attn_q.weight" has the shape \{7, 1\}/}
          ] do
        path = metadata() |> bytes(tensors) |> write(context.tmp_dir)
        assert_raise ArgumentError, message, fn -> GGUF.load_bumblebee(path) end
      end
    end

    test "options that are not known are refused", %{tmp_dir: folder} = context do
      path = metadata() |> bytes(tensors(context.spec, context.data)) |> write(folder)

      assert_raise ArgumentError, ~r/unknown keys/, fn ->
        GGUF.load_bumblebee(path, backend: 1)
      end

      assert_raise ArgumentError, ~r/:type must be/, fn ->
        GGUF.load_bumblebee(path, type: :f64)
      end
    end
  end
end
