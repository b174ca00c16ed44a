defmodule Emily.GGUF.Tokenizer.ByteLevel do
  @moduledoc false
  # Pairs of bytes that are merged, which GGUF calls gpt2.

  import Emily.GGUF.Metadata

  alias Emily.GGUF.Tokenizer

  # The rules for cutting a text into words, as the published tokenizers of these families have them.
  @gpt2 ~S"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
  @contractions "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
  @punctuation ~S" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  @llama3 @contractions <> ~S"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" <> @punctuation
  @qwen2 @contractions <> ~S"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" <> @punctuation
  @small ~S"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
  @large ~S"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
  @slashes ~S" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  @tekken @small <> "|" <> @large <> ~S"|\p{N}|" <> @slashes
  @gpt4o @small <>
           @contractions <>
           "?|" <> @large <> @contractions <> ~S"?|\p{N}{1,3}|" <> @slashes

  # GGUF's names of them: the cuts, and what else differs.
  @rules %{
    "gpt-2" => [cuts: [@gpt2]],
    "default" => [cuts: [~S"[\p{P}\$\+<=>\^~\|]+", @gpt2, ~S"\p{N}+", "[0-9][0-9][0-9]"]],
    "smollm" => [cuts: [~S"\p{N}", @gpt2]],
    # A word that is a token is not made of others.
    "llama-bpe" => [cuts: [@llama3], whole: true, bos: true],
    "dbrx" => [cuts: [@llama3]],
    "smaug-bpe" => [cuts: [@llama3]],
    "qwen2" => [cuts: [@qwen2], normalizer: %{"type" => "NFC"}],
    "tekken" => [cuts: [@tekken], whole: true, bos: true],
    "gpt-4o" => [cuts: [@gpt4o]]
  }

  def parts(gguf, typed) do
    rules = rules(gguf)
    tokens = Enum.map(typed, &elem(&1, 0))

    %{
      type: :gpt2,
      vocabulary: tokens,
      special:
        Tokenizer.special(gguf, tokens, bos: "bos", eos: "eos", unk: "unknown", pad: "padding"),
      before: Tokenizer.added(gguf, [{:bos, "bos", rules[:bos] || false}]),
      behind: Tokenizer.added(gguf, [{:eos, "eos", false}]),
      json: %{
        "normalizer" => rules[:normalizer],
        "pre_tokenizer" => %{
          "type" => "Sequence",
          "pretokenizers" =>
            Enum.map(rules[:cuts], &cut/1) ++ [Map.put(bytes(), "add_prefix_space", false)]
        },
        "decoder" => Map.put(bytes(), "add_prefix_space", true),
        "model" => %{
          "type" => "BPE",
          "merges" => merges(gguf),
          "ignore_merges" => rules[:whole] || false
        }
      }
    }
  end

  defp cut(pattern) do
    %{
      "type" => "Split",
      "pattern" => %{"Regex" => pattern},
      "behavior" => "Isolated",
      "invert" => false
    }
  end

  defp bytes, do: %{"type" => "ByteLevel", "trim_offsets" => true, "use_regex" => false}

  defp rules(gguf) do
    name = get(gguf, "tokenizer.ggml.pre", :string, "default")

    @rules[name] ||
      fail(
        gguf,
        "tokenizer.ggml.pre: its pre-tokenizer is #{inspect(name)}; supported: " <>
          Enum.map_join(Map.keys(@rules), ", ", &inspect/1)
      )
  end

  defp merges(gguf) do
    for merge <- fetch!(gguf, "tokenizer.ggml.merges", :strings) do
      case String.split(merge, " ") do
        [_left, _right] = pair -> pair
        _ -> fail(gguf, "tokenizer.ggml.merges has #{inspect(merge)}, no pair of tokens")
      end
    end
  end
end
