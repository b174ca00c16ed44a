defmodule Emily.GGUF.Tokenizer do
  @moduledoc false
  # A Bumblebee tokenizer of the keys `tokenizer.ggml.*`.
  #
  # It is written down as a `tokenizer.json` of Hugging Face's, of which the package tokenizers makes one: its other
  # functions lack what some models need, as merges that are passed over, and templates of any tokens.

  import Emily.GGUF.Metadata

  alias Emily.GGUF.Tokenizer.{ByteLevel, SentencePiece, WordPiece}
  alias Tokenizers.Tokenizer

  @compile {:no_warn_undefined, [Jason, Tokenizer]}

  @models %{"gpt2" => ByteLevel, "llama" => SentencePiece, "bert" => WordPiece}

  # GGML's types of tokens.
  @types 1..6
  @unknown 2
  @control 3
  @user_defined 4

  @doc """
  The tokenizer of a file.

  A module of `@models` has `parts/2`: what its `tokenizer.json` has under `"model"`, `"normalizer"`, `"pre_tokenizer"` and
  `"decoder"`; `vocabulary`, the tokens as that model has them; the `special` tokens by the names of Bumblebee's; and the
  names of those `before` and `behind` each text.
  """
  def build(gguf) do
    name = fetch!(gguf, "tokenizer.ggml.model", :string)

    module =
      @models[name] ||
        fail(
          gguf,
          "tokenizer.ggml.model: its tokenizer is of the model #{inspect(name)}; supported: " <>
            Enum.map_join(Map.keys(@models), ", ", &inspect/1)
        )

    tokens = fetch!(gguf, "tokenizer.ggml.tokens", :strings)
    types = types(gguf, length(tokens))
    parts = module.parts(gguf, Enum.zip(tokens, types))
    vocabulary = parts.vocabulary |> Enum.with_index() |> Map.new()

    if map_size(vocabulary) != length(tokens),
      do: fail(gguf, "tokenizer.ggml.tokens has tokens twice")

    typed = parts.vocabulary |> Enum.zip(types) |> Enum.with_index()

    json = %{
      "version" => "1.0",
      "truncation" => nil,
      "padding" => nil,
      "added_tokens" => added_tokens(gguf, typed),
      "normalizer" => parts.json["normalizer"],
      "pre_tokenizer" => parts.json["pre_tokenizer"],
      "post_processor" => ends(gguf, parts, vocabulary),
      "decoder" => parts.json["decoder"],
      "model" => Map.put(parts.json["model"], "vocab", vocabulary)
    }

    struct!(Bumblebee.Text.PreTrainedTokenizer,
      native_tokenizer: native(gguf, json),
      type: parts.type,
      special_tokens: parts.special,
      additional_special_tokens: MapSet.new(for({{token, @control}, _id} <- typed, do: token))
    )
  end

  @doc "The tokens that a file names, of `{name, key}`, by these names."
  def special(gguf, tokens, names) do
    tokens = List.to_tuple(tokens)

    for {name, key} <- names,
        id = token_id(gguf, key, tuple_size(tokens)),
        into: %{},
        do: {name, elem(tokens, id)}
  end

  @doc "The names of which a file says that their token stands before or behind each text."
  def added(gguf, names) do
    for {name, key, default} <- names,
        get(gguf, "tokenizer.ggml.add_#{key}_token", :boolean, default),
        do: name
  end

  defp types(gguf, count) do
    types = fetch!(gguf, "tokenizer.ggml.token_type", :integers)

    if length(types) != count,
      do: fail(gguf, "tokenizer.ggml.tokens has tokens without a type")

    if type = Enum.find(types, &(&1 not in @types)),
      do: fail(gguf, "tokenizer.ggml.token_type has #{type}, no type of a token")

    types
  end

  # Tokens that are found in a text as a whole.
  defp added_tokens(gguf, typed) do
    strip? = strips_behind?(gguf)

    for {{token, type}, id} <- typed, type in [@unknown, @control, @user_defined], token != "" do
      %{
        "id" => id,
        "content" => token,
        "single_word" => false,
        "lstrip" => false,
        "rstrip" => strip? and token not in ["<unk>", "<s>", "<|endoftext|>"],
        "normalized" => false,
        "special" => type != @user_defined
      }
    end
  end

  # The spaces behind Phi 3's tokens belong to them, which no field of a file says: llama.cpp goes by the name.
  defp strips_behind?(gguf) do
    name = gguf |> get("general.name", :string, "") |> String.downcase()
    name =~ "phi-3" or name =~ "phi3"
  end

  # What stands before and behind every text.
  defp ends(gguf, %{before: before, behind: behind, special: special}, vocabulary) do
    tokens =
      for name <- Enum.uniq(before ++ behind), into: %{} do
        token =
          special[name] ||
            fail(
              gguf,
              "tokenizer.ggml.add_#{name}_token: it adds the token #{name}, which it does not have"
            )

        {name, token}
      end

    if tokens != %{} do
      piece = fn names, type ->
        for name <- names,
            do: %{"SpecialToken" => %{"id" => tokens[name], "type_id" => type}}
      end

      text = fn name, type -> [%{"Sequence" => %{"id" => name, "type_id" => type}}] end
      first = piece.(before, 0) ++ text.("A", 0) ++ piece.(behind, 0)
      # Of a pair, only what stands before all texts of BERT's is not repeated.
      again = if :cls in before, do: [], else: before

      %{
        "type" => "TemplateProcessing",
        "single" => first,
        "pair" => first ++ piece.(again, 1) ++ text.("B", 1) ++ piece.(behind, 1),
        "special_tokens" =>
          Map.new(tokens, fn {_name, token} ->
            {token, %{"id" => token, "ids" => [vocabulary[token]], "tokens" => [token]}}
          end)
      }
    end
  end

  defp native(gguf, json) do
    case json |> Jason.encode!() |> Tokenizer.from_buffer() do
      {:ok, tokenizer} ->
        tokenizer

      {:error, reason} ->
        fail(gguf, "tokenizer.ggml.*: its tokenizer is refused: #{inspect(reason)}")
    end
  end
end
