# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.GGUF.TokenizerTest do
    # Small tokenizers that Hugging Face's tokenizers and SentencePiece trained, against what these make of texts:
    # test/fixtures/tokenizers/generate.py.
    use ExUnit.Case, async: true

    import Emily.GGUFFile

    alias Emily.GGUF
    alias Tokenizers.{Encoding, Tokenizer}

    @fixtures Path.expand("../../fixtures/tokenizers", __DIR__)

    defp build(name),
      do: @fixtures |> Path.join(name <> ".gguf") |> GGUF.read!() |> GGUF.Tokenizer.build()

    defp texts(name) do
      all = @fixtures |> Path.join(name <> ".json") |> File.read!() |> Jason.decode!()
      assert length(all) > 100
      for %{"text" => text, "ids" => ids} when is_list(ids) <- all, do: {text, ids}
    end

    defp encode(tokenizer, text, opts \\ []) do
      opts = Keyword.merge([add_special_tokens: false], opts)
      {:ok, encoding} = Tokenizer.encode(tokenizer.native_tokenizer, text, opts)
      Encoding.get_ids(encoding)
    end

    for name <- ["gpt-2", "default", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"] do
      test "bytes by the rules of #{name}" do
        tokenizer = build(unquote(name))

        for {text, ids} <- texts(unquote(name)) do
          assert {text, encode(tokenizer, text)} == {text, ids}

          # Qwen's composes letters and marks.
          if unquote(name) != "qwen2" do
            native = tokenizer.native_tokenizer
            assert Tokenizer.decode(native, ids, skip_special_tokens: false) == {:ok, text}
          end
        end
      end
    end

    for name <- ["sentence-piece", "sentence-piece-bare"] do
      test "SentencePiece's #{name}" do
        tokenizer = build(unquote(name))

        for {text, ids} <- texts(unquote(name)) do
          assert {text, encode(tokenizer, text)} == {text, ids}
          assert Tokenizer.decode(tokenizer.native_tokenizer, ids) == {:ok, text}
        end

        assert encode(tokenizer, "a", add_special_tokens: true) == [1 | encode(tokenizer, "a")]
      end
    end

    test "BERT's pieces of words" do
      tokenizer = build("bert")
      for {text, ids} <- texts("bert"), do: assert({text, encode(tokenizer, text)} == {text, ids})

      assert tokenizer.special_tokens ==
               %{cls: "[CLS]", mask: "[MASK]", pad: "[PAD]", sep: "[SEP]", unk: "[UNK]"}

      {:ok, pair} = Tokenizer.encode(tokenizer.native_tokenizer, {"the", "the"})
      [the] = encode(tokenizer, "the")
      assert Encoding.get_ids(pair) == [2, the, 3, the, 3]
      assert Encoding.get_type_ids(pair) == [0, 0, 0, 1, 1]
    end

    describe "refused is" do
      @describetag :tmp_dir

      defp refused(metadata, folder, message) do
        path = metadata |> bytes([]) |> write(folder)

        error =
          assert_raise ArgumentError, fn -> path |> GGUF.read!() |> GGUF.Tokenizer.build() end

        assert error.message =~ "Emily.GGUF: #{path}: "
        assert error.message =~ message
      end

      defp fields(model, tokens, types, more) do
        [
          {"tokenizer.ggml.model", :string, model},
          {"tokenizer.ggml.tokens", {:array, :string}, tokens},
          {"tokenizer.ggml.token_type", {:array, :s32}, types} | more
        ]
      end

      test "scores that are missing, too few, of another kind or no numbers", %{tmp_dir: folder} do
        scores = fn type, scores -> [{"tokenizer.ggml.scores", {:array, type}, scores}] end
        pieces = &fields("llama", ["<unk>", "a"], [2, 1], &1)
        refused(pieces.([]), folder, "there is no tokenizer.ggml.scores")
        refused(pieces.(scores.(:f32, [0.0])), folder, "has 1 scores for 2 tokens")
        refused(pieces.(scores.(:string, ["a", "b"])), folder, "scores is [\"a\", \"b\"]")
        nan = <<0, 0, 0xC0, 0x7F>>
        refused(pieces.(scores.(:f32, [0.0, nan])), folder, "scores is [0.0, :nan], no numbers")
      end

      test "a token longer than any", %{tmp_dir: folder} do
        scores = [{"tokenizer.ggml.scores", {:array, :f32}, [0.0, 0.0]}]
        long = String.duplicate("a", 257)
        fields = fields("llama", ["<unk>", long], [2, 1], scores)
        refused(fields, folder, "has a token of 257 bytes, at most 256")
      end

      test "BERT's without a token for what is unknown", %{tmp_dir: folder} do
        fields = fields("bert", ["▁a", "b"], [1, 1], [])
        refused(fields, folder, "no tokenizer.ggml.unknown_token_id")
        fields = fields("bert", ["▁a", "b", "[UNK]"], [1, 1, 3], [])
        refused(fields, folder, "add_cls_token: it adds the token cls")
        # What goes on with a word, as it begins another.
        fields = fields("bert", ["▁##a", "a", "[UNK]", "[CLS]", "[SEP]"], [1, 1, 3, 3, 3], [])
        refused(fields, folder, "tokens twice")
      end

      test "settings of another kind", %{tmp_dir: folder} do
        scores = [{"tokenizer.ggml.scores", {:array, :f32}, [0.0, 0.0]}]
        space = [{"tokenizer.ggml.add_space_prefix", :u8, 1}]
        fields = fields("llama", ["<unk>", "a"], [2, 1], scores ++ space)
        refused(fields, folder, "add_space_prefix is 1, no boolean")
        lower = [{"tokenizer.ggml.normalizer.lowercase", :string, "no"}]
        fields = fields("bert", ["[UNK]", "[CLS]", "[SEP]"], [3, 3, 3], lower)
        refused(fields, folder, "lowercase is \"no\", no boolean")
        name = [{"general.name", :u32, 1}]
        fields = fields("bert", ["[UNK]", "[CLS]", "[SEP]"], [3, 3, 3], name)
        refused(fields, folder, "general.name is 1, no string")
      end
    end
  end
end
