defmodule Emily.GGUF.Tokenizer.SentencePiece do
  @moduledoc false
  # SentencePiece's pairs of characters that are merged by the scores of what they make, which GGUF calls llama.

  import Emily.GGUF.Metadata

  alias Emily.GGUF.Tokenizer

  @normal 1

  # Each cut of a token is looked up.
  @longest 256

  # SentencePiece's space.
  @space "▁"

  def parts(gguf, typed) do
    tokens = Enum.map(typed, &elem(&1, 0))
    unknown = token_id(gguf, "unknown", length(tokens)) || 0
    prefix? = get(gguf, "tokenizer.ggml.add_space_prefix", :boolean, true)

    %{
      type: :llama,
      vocabulary: tokens,
      special:
        Tokenizer.special(gguf, tokens, bos: "bos", eos: "eos", unk: "unknown", pad: "padding"),
      before: Tokenizer.added(gguf, [{:bos, "bos", true}]),
      behind: Tokenizer.added(gguf, [{:eos, "eos", false}]),
      json: %{
        "normalizer" =>
          sequence("normalizers", [
            prefix? && %{"type" => "Prepend", "prepend" => @space},
            replace(" ", @space)
          ]),
        "decoder" =>
          sequence("decoders", [
            replace(@space, " "),
            %{"type" => "ByteFallback"},
            %{"type" => "Fuse"},
            prefix? && %{"type" => "Strip", "content" => " ", "start" => 1, "stop" => 0}
          ]),
        "model" => %{
          "type" => "BPE",
          "merges" => merges(gguf, typed),
          "unk_token" => Enum.at(tokens, unknown),
          "fuse_unk" => true,
          "byte_fallback" => true
        }
      }
    }
  end

  defp sequence(name, parts), do: %{"type" => "Sequence", name => Enum.filter(parts, & &1)}

  defp replace(what, by),
    do: %{"type" => "Replace", "pattern" => %{"String" => what}, "content" => by}

  # Every two tokens that make a third, those that make the best first.
  defp merges(gguf, typed) do
    scores = fetch!(gguf, "tokenizer.ggml.scores", :numbers)

    if length(scores) != length(typed),
      do:
        fail(
          gguf,
          "tokenizer.ggml.scores has #{length(scores)} scores for #{length(typed)} tokens"
        )

    scored = for {{token, @normal}, score} <- Enum.zip(typed, scores), do: {token, score}
    known = MapSet.new(scored, &elem(&1, 0))

    if token = Enum.find(known, &(byte_size(&1) > @longest)) do
      fail(
        gguf,
        "tokenizer.ggml.tokens has a token of #{byte_size(token)} bytes, at most #{@longest}"
      )
    end

    for({token, score} <- scored, pair <- pairs(token, known), do: {score, pair})
    |> Enum.sort_by(fn {score, {left, right}} -> {-score, byte_size(left), byte_size(right)} end)
    |> Enum.map(fn {_score, {left, right}} -> [left, right] end)
  end

  defp pairs(token, known), do: pairs(token, 0, known)

  defp pairs(token, at, known) do
    case token do
      <<_::binary-size(^at), char::utf8, rest::binary>> when rest != "" ->
        at = at + byte_size(<<char::utf8>>)
        left = binary_part(token, 0, at)

        if left in known and rest in known,
          do: [{left, rest} | pairs(token, at, known)],
          else: pairs(token, at, known)

      _ ->
        []
    end
  end
end
