defmodule Emily.GGUF.Tokenizer do
  @moduledoc false
  # A Bumblebee tokenizer of the keys `tokenizer.ggml.*`: byte-level BPE, which GGUF calls gpt2.

  import Emily.GGUF.Metadata

  alias Tokenizers.{AddedToken, Decoder, PostProcessor, PreTokenizer, Tokenizer}
  alias Tokenizers.Model.BPE

  @compile {:no_warn_undefined,
            [AddedToken, BPE, Decoder, PostProcessor, PreTokenizer, Tokenizer]}

  # GGML's types of tokens, and those of them that are found in a text as a whole.
  @types 1..6
  @control 3
  @user_defined 4

  def build(gguf) do
    case fetch!(gguf, "tokenizer.ggml.model", :string) do
      "gpt2" ->
        :ok

      name ->
        fail(
          gguf,
          "tokenizer.ggml.model: its tokenizer is of the model #{inspect(name)}; supported: \"gpt2\""
        )
    end

    tokens = fetch!(gguf, "tokenizer.ggml.tokens", :strings)
    types = fetch!(gguf, "tokenizer.ggml.token_type", :integers)
    vocabulary = tokens |> Enum.with_index() |> Map.new()

    if map_size(vocabulary) != length(tokens) or length(types) != length(tokens),
      do: fail(gguf, "tokenizer.ggml.tokens has tokens twice, or without a type")

    if type = Enum.find(types, &(&1 not in @types)),
      do: fail(gguf, "tokenizer.ggml.token_type has #{type}, no type of a token")

    typed = Enum.zip(tokens, types)
    control = for {token, @control} <- typed, do: token
    special = special_tokens(gguf, List.to_tuple(tokens))

    struct!(Bumblebee.Text.PreTrainedTokenizer,
      native_tokenizer:
        gguf
        |> model(vocabulary)
        |> Tokenizer.set_pre_tokenizer(pre_tokenizer(gguf))
        |> Tokenizer.set_decoder(Decoder.byte_level())
        |> add(control, true)
        |> add(for({token, @user_defined} <- typed, do: token), false)
        |> ends(gguf, special, vocabulary),
      type: :gpt2,
      special_tokens: special,
      additional_special_tokens: MapSet.new(control)
    )
  end

  defp model(gguf, vocabulary) do
    merges =
      for merge <- fetch!(gguf, "tokenizer.ggml.merges", :strings) do
        case String.split(merge, " ") do
          [left, right] -> {left, right}
          _ -> fail(gguf, "tokenizer.ggml.merges has #{inspect(merge)}, no pair of tokens")
        end
      end

    with {:ok, model} <- BPE.init(vocabulary, merges),
         {:ok, tokenizer} <- Tokenizer.init(model) do
      tokenizer
    else
      {:error, reason} ->
        fail(gguf, "tokenizer.ggml.merges: its tokenizer is refused: #{inspect(reason)}")
    end
  end

  # The rules for cutting a text into words, under llama.cpp's names of them.
  defp pre_tokenizer(gguf) do
    bytes = PreTokenizer.byte_level(add_prefix_space: false)

    case fetch!(gguf, "tokenizer.ggml.pre", :string) do
      "gpt-2" ->
        bytes

      "smollm" ->
        PreTokenizer.sequence([PreTokenizer.digits(individual_digits: true), bytes])

      name ->
        fail(
          gguf,
          "tokenizer.ggml.pre: its pre-tokenizer is #{inspect(name)}; supported: \"gpt-2\" and \"smollm\""
        )
    end
  end

  defp special_tokens(gguf, tokens) do
    for {name, key} <- [bos: "bos", eos: "eos", unk: "unknown", pad: "padding"],
        id = token_id(gguf, key, tuple_size(tokens)),
        into: %{},
        do: {name, elem(tokens, id)}
  end

  # Tokens that the vocabulary has keep their ids.
  defp add(tokenizer, [], _special), do: tokenizer

  defp add(tokenizer, tokens, special) do
    added = Enum.map(tokens, &AddedToken.new(&1, special: special, normalized: false))

    if special,
      do: Tokenizer.add_special_tokens(tokenizer, added),
      else: Tokenizer.add_tokens(tokenizer, added)
  end

  # What stands before and behind every text.
  defp ends(tokenizer, gguf, special, vocabulary) do
    [bos, eos] =
      for name <- [:bos, :eos] do
        if get(gguf, "tokenizer.ggml.add_#{name}_token", :boolean, false),
          do: added_token(gguf, name, special[name])
      end

    case Enum.reject([bos, eos], &is_nil/1) do
      [] ->
        tokenizer

      added ->
        join = &Enum.join(Enum.reject(&1, fn part -> is_nil(part) end), " ")

        Tokenizer.set_post_processor(
          tokenizer,
          PostProcessor.template(
            single: join.([bos, "$A", eos]),
            pair: join.([bos, "$A", eos, bos && bos <> ":1", "$B:1", eos && eos <> ":1"]),
            special_tokens: for(token <- Enum.uniq(added), do: {token, vocabulary[token]})
          )
        )
    end
  end

  defp added_token(gguf, name, nil),
    do:
      fail(
        gguf,
        "tokenizer.ggml.add_#{name}_token: it adds the token #{name}, which it does not have"
      )

  # A template is words with a space between them, in which $ and : have a meaning.
  defp added_token(gguf, name, token) do
    if token =~ ~r/\A[^\s$:]+\z/u,
      do: token,
      else:
        fail(
          gguf,
          "tokenizer.ggml.add_#{name}_token adds #{inspect(token)}, which no template can have"
        )
  end
end
