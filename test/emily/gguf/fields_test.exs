# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.GGUF.FieldsTest do
    # What a file says of itself and is not so: it is refused by name, before a model is made of it.
    use ExUnit.Case, async: true
    use ExUnitProperties

    import Emily.GGUFFile

    alias Emily.GGUF

    @moduletag :tmp_dir

    # A model of one block: 2 heads of 4 numbers, with one head of keys and values.
    @metadata [
      {"general.architecture", :string, "llama"},
      {"llama.block_count", :u32, 1},
      {"llama.context_length", :u32, 32},
      {"llama.vocab_size", :u32, 5},
      {"llama.embedding_length", :u32, 8},
      {"llama.feed_forward_length", :u32, 6},
      {"llama.attention.head_count", :u32, 2},
      {"llama.attention.head_count_kv", :u32, 1},
      {"llama.attention.key_length", :u32, 4},
      {"llama.attention.value_length", :u32, 4},
      {"llama.attention.causal", :bool, true},
      {"llama.attention.layer_norm_rms_epsilon", :f32, 0.5},
      {"llama.expert_count", :u32, 0},
      {"llama.rope.dimension_count", :u32, 4},
      {"llama.rope.freq_base", :f32, 500.0},
      {"llama.rope.scale_linear", :f32, 2.0},
      {"llama.rope.scaling.type", :string, "linear"},
      {"llama.rope.scaling.factor", :f32, 2.0},
      {"tokenizer.ggml.model", :string, "gpt2"},
      {"tokenizer.ggml.pre", :string, "gpt-2"},
      {"tokenizer.ggml.tokens", {:array, :string}, ["a", "b", "ab", "<s>", "</s>"]},
      {"tokenizer.ggml.token_type", {:array, :s32}, [1, 1, 4, 3, 3]},
      {"tokenizer.ggml.merges", {:array, :string}, ["a b"]},
      {"tokenizer.ggml.bos_token_id", :u32, 3},
      {"tokenizer.ggml.eos_token_id", :u32, 4},
      {"tokenizer.ggml.eot_token_id", :u32, 4},
      {"tokenizer.ggml.unknown_token_id", :u32, 0},
      {"tokenizer.ggml.padding_token_id", :u32, 4},
      {"tokenizer.ggml.add_bos_token", :bool, true},
      {"tokenizer.ggml.add_eos_token", :bool, true}
    ]

    # As the file has them: the size of a row first.
    @tensors [
      {"token_embd.weight", [8, 5]},
      {"output_norm.weight", [8]},
      {"output.weight", [8, 5]},
      {"blk.0.attn_norm.weight", [8]},
      {"blk.0.attn_q.weight", [8, 8]},
      {"blk.0.attn_k.weight", [8, 4]},
      {"blk.0.attn_v.weight", [8, 4]},
      {"blk.0.attn_output.weight", [8, 8]},
      {"blk.0.ffn_norm.weight", [8]},
      {"blk.0.ffn_gate.weight", [8, 6]},
      {"blk.0.ffn_up.weight", [8, 6]},
      {"blk.0.ffn_down.weight", [6, 8]}
    ]

    defp tensor(name, sizes, type \\ 0) do
      bytes = for n <- 1..Enum.product(sizes), into: <<>>, do: <<n / 100::float-32-little>>
      {name, type, sizes, bytes}
    end

    defp file(
           folder,
           metadata,
           tensors \\ for({name, sizes} <- @tensors, do: tensor(name, sizes))
         ),
         do: metadata |> bytes(tensors) |> write(folder)

    defp with_field(key, type, value),
      do: List.keyreplace(@metadata, key, 0, {key, type, value})

    # The error of a file that is refused, or what the model of one that is not gives.
    defp load(path) do
      {:ok, %{model_info: info, tokenizer: tokenizer}} = GGUF.load_bumblebee(path)
      Nx.default_backend(Emily.Backend)

      tokenizer =
        Bumblebee.configure(tokenizer, return_token_type_ids: false)

      inputs = Bumblebee.apply_tokenizer(tokenizer, "abba")
      logits = Axon.predict(info.model, info.params, inputs).logits
      {:ok, Nx.to_flat_list(logits)}
    rescue
      error in ArgumentError ->
        assert error.message =~ "Emily.GGUF: #{path}: "
        {:error, error.message}
    end

    test "the file is one that loads", %{tmp_dir: folder} do
      assert {:ok, logits} = folder |> file(@metadata) |> load()
      # Six tokens: the two at the ends stand around the text.
      assert length(logits) == 5 * 5
    end

    for {key, type, value, message} <- [
          {"llama.block_count", :u32, 0x7FFFFFFF, ~r/block_count is 2147483647, at most/},
          {"llama.block_count", :u32, 257, ~r/block_count is 257, at most 256/},
          {"llama.block_count", :u32, 256, ~r/block_count is 256, but there are tensors of 1/},
          {"llama.block_count", :u32, 0, ~r/block_count is 0, no size/},
          {"llama.block_count", :u64, 0xFFFFFFFFFFFFFFFF, ~r/block_count is \d+, no size/},
          {"llama.block_count", :f32, 1.0, ~r/block_count is 1.0, no size/},
          {"llama.attention.head_count", :u32, 3, ~r/llama.attention.head_count, /},
          {"llama.attention.head_count", :u32, 7, ~r/llama.attention.head_count, /},
          {"llama.attention.head_count", :s32, -2, ~r/head_count is -2/},
          {"llama.attention.head_count", {:array, :u32}, [2], ~r/head_count is \[2\]/},
          {"llama.attention.head_count_kv", :u32, 2, ~r/head_count_kv/},
          {"llama.attention.head_count_kv", :u32, 3, ~r/no multiple of head_count_kv, 3/},
          {"llama.attention.key_length", :u32, 3, ~r/key_length gives heads of the odd size 3/},
          {"llama.attention.key_length", :u32, 0x7FFFFFFE,
           ~r/value_length is 4; supported: 2147483646/},
          {"llama.attention.value_length", :u32, 2, ~r/value_length is 2; supported: 4/},
          {"llama.attention.causal", :bool, false, ~r/attention.causal is false/},
          {"llama.embedding_length", :u32, 0x7FFFFFFF, ~r/embedding_length is 2147483647, but/},
          {"llama.feed_forward_length", :u32, 5, ~r/by llama.feed_forward_length/},
          {"llama.feed_forward_length", :u32, 0x7FFFFFFF, ~r/by llama.feed_forward_length/},
          {"llama.context_length", :u32, 0, ~r/context_length is 0/},
          {"llama.vocab_size", :u32, 6, ~r/vocab_size counts 6 tokens, but .* has 5 rows/},
          {"llama.rope.dimension_count", :u32, 2, ~r/dimension_count is 2; supported: 4/},
          {"llama.rope.freq_base", :f32, <<0, 0, 0xC0, 0x7F>>, ~r/freq_base is :nan/},
          {"llama.rope.freq_base", :f32, 0.0, ~r/freq_base is 0.0/},
          {"llama.rope.freq_base", :f64, 1.0e300, ~r/freq_base is 1.0e300/},
          {"llama.rope.scaling.type", :string, "yarn", ~r/rope.scaling.type is "yarn"/},
          {"llama.rope.scaling.factor", :f32, -1.0, ~r/scaling.factor is -1.0/},
          {"llama.attention.layer_norm_rms_epsilon", :f32, <<0, 0, 0x80, 0x7F>>,
           ~r/layer_norm_rms_epsilon is :infinity/},
          {"llama.attention.layer_norm_rms_epsilon", :string, "1", ~r/rms_epsilon is "1"/},
          {"tokenizer.ggml.tokens", {:array, :string}, ["a", "b", "ab", "<s>"],
           ~r/tokens counts 4 tokens/},
          {"tokenizer.ggml.tokens", {:array, :u32}, [1, 2, 3, 4, 5], ~r/tokens is \[1,/},
          {"tokenizer.ggml.token_type", {:array, :s32}, [1, 1, 4, 3, 9], ~r/token_type has 9/},
          {"tokenizer.ggml.token_type", {:array, :f32}, [1.0, 1.0, 4.0, 3.0, 3.0],
           ~r/token_type is \[1.0/},
          {"tokenizer.ggml.merges", {:array, :string}, [" "], ~r/tokenizer is refused/},
          {"tokenizer.ggml.bos_token_id", :u32, 5, ~r/bos_token_id is 5, beyond/},
          {"tokenizer.ggml.eos_token_id", :u32, 99, ~r/eos_token_id is 99, beyond/},
          {"tokenizer.ggml.eot_token_id", :u32, 0x7FFFFFFF, ~r/eot_token_id is .*, beyond/},
          {"tokenizer.ggml.unknown_token_id", :s32, -1, ~r/unknown_token_id is -1/},
          {"tokenizer.ggml.padding_token_id", :u32, 5, ~r/padding_token_id is 5, beyond/},
          {"tokenizer.ggml.add_bos_token", :u8, 1, ~r/add_bos_token is 1, no boolean/}
        ] do
      @field {key, type, value, message}
      test "#{key} of #{inspect(value)}", %{tmp_dir: folder} do
        {key, type, value, message} = @field
        assert {:error, error} = folder |> file(with_field(key, type, value)) |> load()
        assert error =~ message
      end
    end

    test "heads that the embedding's length does not give", %{tmp_dir: folder} do
      without = List.keydelete(@metadata, "llama.attention.key_length", 0)

      for {heads, message} <- [
            {3, ~r/llama.embedding_length is 8, no multiple of attention.head_count, 3/},
            {8, ~r/llama.attention.head_count gives heads of the odd size 1/}
          ] do
        metadata =
          List.keyreplace(
            without,
            "llama.attention.head_count",
            0,
            {"llama.attention.head_count", :u32, heads}
          )

        assert {:error, error} = folder |> file(metadata) |> load()
        assert error =~ message
      end
    end

    test "a factor without a type of scaling is a linear one", %{tmp_dir: folder} do
      without = List.keydelete(@metadata, "llama.rope.scaling.type", 0)

      for metadata <- [without, List.keydelete(without, "llama.rope.scaling.factor", 0)] do
        {:ok, %{model_info: %{spec: spec}}} = folder |> file(metadata) |> GGUF.load_bumblebee()
        assert spec.rotary_embedding_scaling_strategy == %{type: :linear, factor: 2.0}
      end
    end

    test "any token may stand around a text", %{tmp_dir: folder} do
      for token <- ["<s> ", "$A", "a:1", ""] do
        tokens = ["a", "b", "ab", token, "</s>"]
        metadata = with_field("tokenizer.ggml.tokens", {:array, :string}, tokens)
        {:ok, %{tokenizer: tokenizer}} = folder |> file(metadata) |> GGUF.load_bumblebee()
        %{"input_ids" => ids} = Bumblebee.apply_tokenizer(tokenizer, "ba")
        assert Nx.to_list(ids) == [[3, 1, 0, 4]]
      end
    end

    test "tensors of another shape or type, too few and too many", %{tmp_dir: folder} do
      tensors = for {name, sizes} <- @tensors, do: tensor(name, sizes)

      for {name, sizes} <- @tensors, other <- [[1], [8, 8, 1], Enum.map(sizes, &(&1 + 1))] do
        tensors = List.keyreplace(tensors, name, 0, tensor(name, other))
        assert {:error, error} = folder |> file(@metadata, tensors) |> load()
        assert error =~ name
      end

      for {name, _} <- @tensors, name != "output.weight" do
        path = file(folder, @metadata, List.keydelete(tensors, name, 0))
        assert {:error, error} = load(path)
        assert error =~ ~r/#{name}|block_count/
      end

      integers =
        List.keyreplace(tensors, "output_norm.weight", 0, tensor("output_norm.weight", [8], 26))

      assert {:error, error} = folder |> file(@metadata, integers) |> load()
      assert error =~ ~r/"output_norm.weight" is of type i32; a model takes f32/

      more = for n <- 1..7, do: tensor("more.#{n}", [1])
      assert {:error, error} = folder |> file(@metadata, tensors ++ more) |> load()
      assert error =~ ~r/no place for the tensors more.1, .* and 2 more/

      gap = for {"blk.0." <> rest, sizes} <- @tensors, do: tensor("blk.999999999." <> rest, sizes)
      assert {:error, error} = folder |> file(@metadata, tensors ++ gap) |> load()
      assert error =~ ~r/block_count is 1, but there are tensors of 1000000000 blocks/
    end

    # Every field as what it is not: the file is refused by name, or its model runs.
    @values [
      {:u32, 0},
      {:u32, 1},
      {:u32, 3},
      {:u32, 0x7FFFFFFF},
      {:u32, 0xFFFFFFFF},
      {:s32, -1},
      {:u64, 0xFFFFFFFFFFFFFFFF},
      {:s64, -0x8000000000000000},
      {:u8, 255},
      {:f32, 0.0},
      {:f32, -1.0},
      {:f32, <<1, 0, 0, 0>>},
      {:f32, <<0, 0, 0xC0, 0x7F>>},
      {:f32, <<0, 0, 0x80, 0xFF>>},
      {:f64, 1.0e300},
      {:f64, 1.0e-300},
      {:bool, true},
      {:bool, false},
      {:string, ""},
      {:string, "llama"},
      {:string, String.duplicate("x", 100_000)},
      {{:array, :string}, []},
      {{:array, :string}, ["a", "a", "a", "a", "a"]},
      {{:array, :string}, ["", " ", "  ", "\n", "\0"]},
      {{:array, :string}, ["a b", "b a", "ab <s>", "é", "🙂"]},
      {{:array, :u32}, []},
      {{:array, :u32}, [1, 2, 3, 4, 5]},
      {{:array, :s32}, [-1, -1, -1, -1, -1]},
      {{:array, :bool}, [true, true, true, true, true]},
      {{:array, {:array, :u32}}, [[1], [2]]}
    ]

    test "every field of every kind is taken or refused", %{tmp_dir: folder} do
      results =
        for {key, _, _} <- @metadata, {type, value} <- @values do
          {result, detail} = folder |> file(with_field(key, type, value)) |> load()

          # What a file lacks where it says more than it has is named, be it a tensor or a token.
          if result == :error,
            do:
              assert(
                detail =~
                  ~r/(llama|tokenizer|general)[.a-z_]+/
              )

          result
        end

      assert :ok in results

      for {key, _, _} <- @metadata,
          do: folder |> file(List.keydelete(@metadata, key, 0)) |> load()
    end

    property "any number in the place of any bytes is taken or refused", %{tmp_dir: folder} do
      path = file(folder, @metadata)
      bytes = File.read!(path)
      numbers = [0, 1, 2, 3, 5, 255, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0xFFFFFFFFFFFFFFFF]

      check all(
              at <- integer(0..(byte_size(bytes) - 9)),
              size <- member_of([8, 16, 32, 64]),
              number <- one_of([member_of(numbers), integer(0..0xFFFFFFFF)]),
              max_runs: 1000
            ) do
        <<head::binary-size(^at), _::size(^size), tail::binary>> = bytes
        File.write!(path, [head, <<number::size(size)-little>>, tail])
        assert elem(load(path), 0) in [:ok, :error]
      end
    end
  end
end
