defmodule Emily.GGUF.Tokenizer.WordPiece do
  @moduledoc false
  # BERT's longest pieces of words. A file has the beginnings of words behind a space of SentencePiece's, and what goes on
  # with a word bare, where a vocabulary of BERT's has it behind ##.

  import Emily.GGUF.Metadata

  alias Emily.GGUF.Tokenizer

  @control 3

  @names [
    cls: ["cls", "bos"],
    sep: ["seperator", "eos"],
    unk: ["unknown"],
    pad: ["padding"],
    mask: ["mask"]
  ]

  def parts(gguf, typed) do
    vocabulary = Enum.map(typed, &piece/1)
    special = special(gguf, vocabulary)
    lowercase? = get(gguf, "tokenizer.ggml.normalizer.lowercase", :boolean, true)

    unless special[:unk],
      do: fail(gguf, "there is no tokenizer.ggml.unknown_token_id, nor the token [UNK]")

    %{
      type: :bert,
      vocabulary: vocabulary,
      special: special,
      before: Tokenizer.added(gguf, [{:cls, "bos", true}]),
      behind: Tokenizer.added(gguf, [{:sep, "sep", true}]),
      json: %{
        "normalizer" => %{
          "type" => "BertNormalizer",
          "clean_text" => true,
          "handle_chinese_chars" => true,
          "strip_accents" =>
            get(gguf, "tokenizer.ggml.normalizer.strip_accents", :boolean, lowercase?),
          "lowercase" => lowercase?
        },
        "pre_tokenizer" => %{"type" => "BertPreTokenizer"},
        "decoder" => %{"type" => "WordPiece", "prefix" => "##", "cleanup" => true},
        "model" => %{
          "type" => "WordPiece",
          "unk_token" => special[:unk],
          "continuing_subword_prefix" => "##",
          "max_input_chars_per_word" => 100
        }
      }
    }
  end

  defp piece({token, @control}), do: token
  defp piece({"▁" <> token, _type}), do: token
  defp piece({token, _type}), do: "##" <> token

  # A file names the tokens, by one of several keys, or they are BERT's own.
  defp special(gguf, vocabulary) do
    for {name, keys} <- @names,
        named = Tokenizer.special(gguf, vocabulary, Enum.map(keys, &{&1, &1})),
        own = "[#{name |> to_string() |> String.upcase()}]",
        token = Enum.find_value(keys, &named[&1]) || Enum.find(vocabulary, &(&1 == own)),
        into: %{},
        do: {name, token}
  end
end
