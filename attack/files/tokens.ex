defmodule Attack.Files.Tokens do
  @moduledoc false
  # GGUF files with a tokenizer and nothing else, of each model of tokens that is read; most are changed value by value, so
  # that they are read as files.

  import Attack.Draw
  import Emily.GGUFFile

  alias Attack.Files.Mutation

  @numbers [0, 1, 2, 5, 9, 10, 2 ** 31 - 1, 2 ** 32 - 1]
  @names ["llama", "bert", "gpt2", "default", "qwen2", "phi3", "", "▁", "[UNK]", "</s>"]

  @doc "The files as they are."
  def whole, do: Enum.map(metadata(), &bytes(&1, []))

  @doc "The bytes of a file with one to three changes."
  def draw do
    metadata = pick(metadata())

    if chance(0.2),
      do: metadata |> bytes([]) |> Mutation.mutate(),
      else: 1..integer(1, 3) |> Enum.reduce(metadata, fn _, all -> change(all) end) |> bytes([])
  end

  defp metadata do
    pieces = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "é", "ab", "▁ab"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁a", "▁ab", "b", "é", "!"]
    bytes = ["<|end|>", "a", "b", "Ġ", "Ã", "©", "ab", "Ġab", "Ã©", "1"]

    [
      tokenizer("llama", pieces, [2, 3, 3, 6 | List.duplicate(1, 6)], [
        {"tokenizer.ggml.scores", {:array, :f32}, Enum.map(0..9, &(-1.0 * &1))},
        {"tokenizer.ggml.bos_token_id", :u32, 1},
        {"tokenizer.ggml.eos_token_id", :u32, 2},
        {"tokenizer.ggml.unknown_token_id", :u32, 0},
        {"tokenizer.ggml.add_eos_token", :bool, true},
        {"tokenizer.ggml.add_space_prefix", :bool, true}
      ]),
      tokenizer("bert", words, List.duplicate(3, 5) ++ List.duplicate(1, 5), [
        {"tokenizer.ggml.cls_token_id", :u32, 2},
        {"tokenizer.ggml.seperator_token_id", :u32, 3},
        {"tokenizer.ggml.unknown_token_id", :u32, 1},
        {"tokenizer.ggml.normalizer.lowercase", :bool, false}
      ]),
      tokenizer("gpt2", bytes, [3 | List.duplicate(1, 8)] ++ [4], [
        {"tokenizer.ggml.merges", {:array, :string}, ["a b", "Ġ ab", "Ã ©"]},
        {"tokenizer.ggml.pre", :string, "llama-bpe"},
        {"tokenizer.ggml.bos_token_id", :u32, 0},
        {"tokenizer.ggml.add_bos_token", :bool, true}
      ])
    ]
  end

  defp tokenizer(model, tokens, types, more) do
    [
      {"general.name", :string, "Phi-3"},
      {"tokenizer.ggml.model", :string, model},
      {"tokenizer.ggml.tokens", {:array, :string}, tokens},
      {"tokenizer.ggml.token_type", {:array, :s32}, types} | more
    ]
  end

  defp change(metadata) do
    at = integer(0, length(metadata) - 1)
    {key, type, value} = Enum.at(metadata, at)

    case integer(1, 10) do
      1 -> List.delete_at(metadata, at)
      2 -> List.replace_at(metadata, at, {key, :string, pick(@names)})
      _ -> List.replace_at(metadata, at, {key, type, other(type, value)})
    end
  end

  defp other({:array, type}, list) when list != [] do
    at = integer(0, length(list) - 1)

    case integer(1, 6) do
      1 -> List.delete_at(list, at)
      2 -> List.insert_at(list, at, pick(list))
      3 -> Enum.take(list, at)
      4 -> Enum.shuffle(list)
      _ -> List.update_at(list, at, &other(type, &1))
    end
  end

  defp other(:string, text),
    do: if(text == "" or chance(0.3), do: pick(@names), else: Mutation.mutate(text))

  defp other(:u32, _number), do: pick(@numbers)
  defp other(:s32, number), do: pick([-number, number + 1, 0, 3, 4, 6, 2 ** 31 - 1, -(2 ** 31)])
  defp other(:f32, _number), do: pick([0.0, -0.0, 3.0e38, -3.0e38, 1.0e-45])
  defp other(:bool, flag), do: not flag
  defp other(_type, value), do: value
end
