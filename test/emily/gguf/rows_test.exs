# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.GGUF.RowsTest do
    # The files of test/fixtures/gguf with other fields and tensors than their converter wrote.
    use ExUnit.Case, async: true
    use ExUnitProperties

    import Emily.GGUFFile

    alias Emily.{GGUF, QuantizedWeight}

    @moduletag :tmp_dir
    @fixtures Path.expand("../../fixtures/gguf", __DIR__)
    @numbers %{f32: 0, f16: 1, q8_0: 8}

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    # A file with these fields, `nil` for none, and tensors, as `{type, shape, bytes}` or `nil`.
    defp changed(name, folder, fields, tensors \\ %{}) do
      path = Path.join(@fixtures, name <> ".gguf")
      gguf = GGUF.read!(path)
      file = File.read!(path)

      own = Map.new(gguf.metadata, fn {key, value} -> {key, {gguf.types[key], value}} end)
      fields = own |> Map.merge(Map.new(fields)) |> Enum.reject(&match?({_, nil}, &1))

      theirs =
        Map.new(gguf.tensors, fn {name, tensor} ->
          {name, {tensor.type, tensor.shape, binary_part(file, tensor.offset, tensor.length)}}
        end)

      tensors =
        for {name, {type, shape, bytes}} <- Map.merge(theirs, Map.new(tensors)) do
          {name, @numbers[type], shape |> Tuple.to_list() |> Enum.reverse(), bytes}
        end

      metadata = for {key, {type, value}} <- fields, do: {key, type, value}
      metadata |> bytes(tensors) |> write(folder)
    end

    defp vector(nil), do: nil

    defp vector(list),
      do: {:f32, {length(list)}, for(number <- list, into: <<>>, do: <<number::float-32-little>>)}

    for {name, key, value, message} <- [
          {"gemma3", "gemma3.attention.sliding_window", {:string, "4"}, ~r/window is "4", no/},
          {"gemma3", "gemma3.attention.sliding_window", {:s32, -1}, ~r/window is -1, no count/},
          {"gemma3", "gemma3.attention.sliding_window_pattern", {:u32, 0}, ~r/pattern is 0, no/},
          {"gemma3", "gemma3.attention.sliding_window_pattern", {{:array, :bool}, [true]},
           ~r/pattern has 1 items for 6 blocks/},
          {"gemma3", "gemma3.attention.sliding_window_pattern", {{:array, :u32}, [1]},
           ~r/pattern is \[1\], no booleans/},
          {"gemma3", "gemma3.rope.freq_base_swa", {:f32, <<0, 0, 0xC0, 0x7F>>}, ~r/swa is :nan/},
          {"gemma3", "gemma3.rope.scaling.factor", {:f32, 8.0}, ~r/"linear"; supported: none/},
          {"gemma3", "gemma3.final_logit_softcapping", {:f32, 30.0},
           ~r/softcapping is 30.0, which/},
          {"phi3", "phi3.attention.key_length", {:u32, 8}, ~r/phi3.attention.key_length is 8/},
          {"phi3", "phi3.rope.dimension_count", {:u32, 3}, ~r/count is 3; supported: even/},
          {"phi3", "phi3.rope.dimension_count", {:u32, 8}, ~r/count is 8; supported: .* most 6/},
          {"phi3", "phi3.rope.scaling.type", {:string, "longrope"}, ~r/takes rope_factors_long/},
          {"phi3-longrope", "phi3.rope.scaling.attn_factor", {:f32, 3.0}, ~r/factor is 3.0; /},
          {"phi3-longrope", "phi3.rope.scaling.type", {:string, "yarn"}, ~r/"yarn"; supported:/},
          {"phi3-longrope", "phi3.rope.scaling.original_context_length", nil, ~r/no .*original/},
          {"phi3-longrope", "phi3.rope.scaling.original_context_length", {:u32, 0}, ~r/is 0, no/},
          {"llama-llama3", "llama.rope.scaling.factor", {:f32, 2.0}, ~r/but there is rope_freqs/},
          {"bert", "bert.attention.causal", {:bool, true}, ~r/causal is true; supported: false/},
          {"bert", "bert.attention.causal", nil, ~r/causal is true; supported: false/},
          {"bert", "bert.attention.head_count_kv", {:u32, 2}, ~r/count_kv is 2; supported: 4/},
          {"bert", "bert.attention.layer_norm_epsilon", nil, ~r/no bert.*epsilon/},
          {"bert", "bert.context_length", {:u32, 65}, ~r/by bert.context_length/},
          {"bert", "bert.pooling_type", {:u32, 4}, ~r/pooling_type is 4; supported: 0 to 3/},
          {"bert", "bert.pooling_type", {:string, "mean"}, ~r/pooling_type is "mean", no count/},
          {"nomic-bert", "nomic-bert.feed_forward_length", {:u32, 250}, ~r/no multiple of 256/},
          {"nomic-bert", "nomic-bert.rope.scaling.factor", {:f32, 2.0}, ~r/supported: none/},
          {"llama", "general.architecture", {:string, "qwen2"}, ~r/"qwen2", of which Bumblebee/},
          {"llama", "general.architecture", {:string, "gemma2"},
           ~r/"gemma2", of which Bumblebee/},
          {"llama", "tokenizer.chat_template", {:u32, 1}, ~r/chat_template is 1, no string/}
        ] do
      @case {name, key, value, message}
      test "#{name}: #{key} of #{inspect(value)} is refused", %{tmp_dir: folder} do
        {name, key, value, message} = @case
        path = changed(name, folder, [{key, value}])
        error = assert_raise ArgumentError, fn -> GGUF.load_bumblebee(path) end
        assert error.message =~ "Emily.GGUF: #{path}: "
        assert error.message =~ message
      end
    end

    for {name, tensor, value, message} <- [
          {"phi3-longrope", "rope_factors_long.weight", nil,
           ~r/takes rope_factors_long.weight and/},
          {"phi3-longrope", "rope_factors_short.weight", [1.0],
           ~r/shape \{1\}, expected f32 of \{2/},
          {"phi3-longrope", "rope_factors_short.weight", [1.0, -1.0], ~r/no positive numbers/},
          {"llama-llama3", "rope_freqs.weight", [1.0, 0.0, 1.0], ~r/no positive numbers/},
          {"gemma", "rope_freqs.weight", [1.0, 1.0, 1.0, 1.0], ~r/no place .* rope_freqs/},
          {"qwen3", "blk.0.attn_q_norm.weight", [1.0], ~r/by qwen3.attention.key_length/},
          {"bert", "token_types.weight", [1.0], ~r/"token_types.weight" has the shape \{1\}/},
          {"bert", "blk.0.attn_q.bias", nil, ~r/no tensor blk.0.attn_q.bias/}
        ] do
      @case {name, tensor, value, message}
      test "#{name}: #{tensor} of #{inspect(value)} is refused", %{tmp_dir: folder} do
        {name, tensor, list, message} = @case

        path = changed(name, folder, [], %{tensor => vector(list)})

        error = assert_raise ArgumentError, fn -> GGUF.load_bumblebee(path) end
        assert error.message =~ "Emily.GGUF: #{path}: "
        assert error.message =~ message
      end
    end

    test "a pattern of windows is a number, or one for each block", %{tmp_dir: folder} do
      key = "gemma3.attention.sliding_window_pattern"
      list = [true, false, true, true, false, true]

      for {value, local} <- [
            {nil, [true, true, true, true, true, false]},
            {{:u32, 2}, [true, false, true, false, true, false]},
            {{{:array, :bool}, list}, list}
          ] do
        {:ok, %{model_info: %{spec: spec}}} =
          "gemma3" |> changed(folder, [{key, value}]) |> GGUF.load_bumblebee()

        assert Enum.map(spec.layer_types, &(&1 == :sliding_attention)) == local
      end

      {:ok, %{model_info: %{spec: spec}}} =
        "gemma3"
        |> changed(folder, [{"gemma3.attention.sliding_window", nil}])
        |> GGUF.load_bumblebee()

      assert Enum.uniq(spec.layer_types) == [:full_attention]
    end

    test "an encoder's pooling has Bumblebee's name", %{tmp_dir: folder} do
      for {type, pooling} <- [
            {0, nil},
            {1, :mean_pooling},
            {2, :cls_token_pooling},
            {3, :last_token_pooling}
          ] do
        path = changed("bert", folder, [{"bert.pooling_type", {:u32, type}}])
        assert {:ok, %{pooling: ^pooling}} = GGUF.load_bumblebee(path)
      end
    end

    test "a text ends where a turn does", %{tmp_dir: folder} do
      tokens = GGUF.read!(Path.join(@fixtures, "llama.gguf")).metadata["tokenizer.ggml.tokens"]
      tokens = List.replace_at(tokens, 7, "<|end|>")
      tokens = {"tokenizer.ggml.tokens", {{:array, :string}, tokens}}

      for {fields, ids} <- [
            {[], 1},
            {[tokens], [1, 7]},
            {[tokens, {"tokenizer.ggml.eot_token_id", {:u32, 3}}], [1, 3]}
          ] do
        {:ok, loaded} = "llama" |> changed(folder, fields) |> GGUF.load_bumblebee()
        assert loaded.generation_config.eos_token_id == ids
      end
    end

    test "a chat template is handed out", %{tmp_dir: folder} do
      fields = [
        {"tokenizer.chat_template", {:string, "{{ a }}"}},
        {"tokenizer.chat_template.tool_use", {:string, "{{ b }}"}}
      ]

      path = changed("llama", folder, fields)
      assert {:ok, %{chat_template: "{{ a }}"}} = GGUF.load_bumblebee(path)
      assert path |> GGUF.read!() |> GGUF.chat_template("tool_use") == "{{ b }}"
      assert path |> GGUF.read!() |> GGUF.chat_template("rag") == nil
    end

    # Blocks of a scale, 0.01 in f16, and 32 bytes.
    defp q8_0(rows, columns) do
      for n <- 1..(rows * div(columns, 32)),
          into: <<>>,
          do:
            <<0.01::float-16-little,
              for(m <- 1..32, into: <<>>, do: <<n * 37 + m * m * 11>>)::binary>>
    end

    @tag :cpu
    test "parts of a packed tensor are rows of it", %{tmp_dir: folder} do
      packed =
        for {name, {rows, columns} = shape} <- [
              {"blk.0.attn_qkv.weight", {64, 32}},
              {"blk.1.ffn_up.weight", {64, 32}},
              {"token_embd.weight", {40, 32}}
            ],
            into: %{},
            do: {name, {:q8_0, shape, q8_0(rows, columns)}}

      path = changed("phi3-longrope", folder, [], packed)

      [packed, dense] =
        for dequantize <- [false, true] do
          {:ok, %{model_info: info}} = GGUF.load_bumblebee(path, dequantize: dequantize)
          info
        end

      kernel = packed.params.data["decoder.blocks.0.self_attention.key"]["kernel"]
      assert %QuantizedWeight{value: %{shape: {16, 34}}, mode: "ggml_q8_0"} = kernel

      [a, b] =
        for info <- [packed, dense] do
          inputs = %{"input_ids" => Nx.tensor([[3, 17, 5, 39]])}
          Axon.predict(info.model, info.params, inputs).logits
        end

      assert a |> Nx.subtract(b) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() < 1.0e-3
    end

    for name <- ["gemma3", "phi3-longrope", "nomic-bert"] do
      property "#{name}: any number in the place of any bytes is taken or refused", context do
        source = Path.join(@fixtures, unquote(name) <> ".gguf")
        first = source |> GGUF.read!() |> Map.fetch!(:tensors) |> Enum.map(&elem(&1, 1).offset)
        bytes = File.read!(source)
        path = Path.join(context.tmp_dir, "damaged.gguf")
        numbers = [0, 1, 2, 3, 5, 255, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0xFFFFFFFFFFFFFFFF]

        check all(
                at <- integer(0..(Enum.min(first) - 9)),
                size <- member_of([8, 16, 32, 64]),
                number <- one_of([member_of(numbers), integer(0..0xFFFFFFFF)]),
                max_runs: 60
              ) do
          <<head::binary-size(^at), _::size(^size), tail::binary>> = bytes
          File.write!(path, [head, <<number::size(size)-little>>, tail])

          try do
            assert {:ok, %{model_info: %{}}} = GGUF.load_bumblebee(path)
          rescue
            error in ArgumentError -> assert error.message =~ "Emily.GGUF: #{path}: "
          end
        end
      end
    end
  end
end
