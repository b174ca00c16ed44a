Code.require_file("../../examples/minilm_native.exs", __DIR__)

defmodule MiniLMTest do
  use ExUnit.Case, async: true

  @golden Path.expand("../fixtures/golden/minilm_embeddings.json", __DIR__)

  setup_all do
    # The file is JSON; OTP 26 has no module for it.
    entry = ~r/\{"text": "([^"\\]*)", "ids": \[([^\]]*)\], "embedding": \[([^\]]*)\]\}/

    golden =
      for [_, text, ids, embedding] <- Regex.scan(entry, File.read!(@golden)) do
        {text, numbers(ids, &Integer.parse/1), numbers(embedding, &Float.parse/1)}
      end

    device = Emily.Native.default_device()
    %{golden: golden, model: MiniLM.load!(Demo.model_dir!(), device)}
  end

  defp numbers(list, parse), do: for(x <- String.split(list, ", "), do: elem(parse.(x), 0))

  describe "the tokenizer" do
    test "gives the ids of the golden texts", %{golden: golden, model: model} do
      assert length(golden) == 5
      for {text, ids, _} <- golden, do: assert(encode(model, text) == ids)
    end

    # The ids are those of Hugging Face's tokenizers 0.23.3.
    test "strips case and accents, composed or not", %{model: model} do
      assert encode(model, "Café CRÈME naïve") == [101, 7668, 13675, 21382, 15743, 102]
      assert encode(model, "e\u0301") == [101, 1041, 102]
    end

    test "takes each ideograph, punctuation mark and symbol apart", %{model: model} do
      assert encode(model, "日本語") == [101, 1864, 1876, 1950, 102]

      assert encode(model, "don't stop: $5+3=8 ^_^") ==
               [101, 2123, 1005, 1056, 2644, 1024, 1002, 1019, 1009, 1017, 1027, 1022] ++
                 [1034, 1035, 1034, 102]
    end

    test "drops control characters and takes any space for a space", %{model: model} do
      assert encode(model, "tab\tline\r\nend") == [101, 21628, 2240, 2203, 102]

      assert encode(model, "soft\u00ADhyphen zero\u200Bwidth no\u00A0break") ==
               [101, 3730, 10536, 8458, 2368, 5717, 9148, 11927, 2232, 2053, 3338, 102]
    end

    test "has one id for what it does not know", %{model: model} do
      assert encode(model, "🙂 smile") == [101, 100, 2868, 102]
      assert encode(model, String.duplicate("x", 101)) == [101, 100, 102]
    end

    test "knows the special tokens in a text, as they are written", %{model: model} do
      assert encode(model, "a [MASK] b [mask]") == [101, 1037, 103, 1038, 1031, 7308, 1033, 102]
    end

    test "cuts what is too long and answers to nothing", %{model: model} do
      ids = encode(model, String.duplicate("the ", 300))
      assert length(ids) == 256
      assert List.last(ids) == 102
      assert encode(model, "") == [101, 102]
    end
  end

  describe "the embeddings" do
    test "agree with the golden ones, text by text", %{golden: golden, model: model} do
      for {text, _, embedding} <- golden do
        assert_close(MiniLM.embed(model, [text]), [embedding])
      end
    end

    test "agree in one padded batch", %{golden: golden, model: model} do
      {texts, _, embeddings} = unzip3(golden)
      assert_close(MiniLM.embed(model, texts), embeddings)
    end

    test "agree in more than one batch", %{golden: golden, model: model} do
      golden = golden |> Stream.cycle() |> Enum.take(37)
      {texts, _, embeddings} = unzip3(golden)
      assert_close(MiniLM.embed(model, texts), embeddings)
    end

    test "are of length one for the longest text, and none for no text", %{model: model} do
      [embedding] = MiniLM.embed(model, [String.duplicate("the ", 300)])
      assert_in_delta Enum.sum(Enum.map(embedding, &(&1 * &1))), 1.0, 1.0e-5
      assert MiniLM.embed(model, []) == []
    end

    test "have similarities that know what is alike", %{model: model} do
      texts = ["A man is eating food.", "Someone is having a meal.", "It's so sunny outside!"]
      rows = model |> MiniLM.embed(texts) |> MiniLM.similarities(model.device)

      for {row, i} <- Enum.with_index(rows), do: assert_in_delta(Enum.at(row, i), 1.0, 1.0e-5)
      [[_, alike, other] | _] = rows
      assert alike > 0.5 and other < 0.3
    end
  end

  defp encode(model, text), do: MiniLM.Tokenizer.encode(model.tokenizer, text)

  defp unzip3(list) do
    {for({x, _, _} <- list, do: x), for({_, y, _} <- list, do: y), for({_, _, z} <- list, do: z)}
  end

  defp assert_close(embeddings, expected) do
    assert Enum.map(embeddings, &length/1) == Enum.map(expected, &length/1)

    worst =
      Enum.zip(List.flatten(embeddings), List.flatten(expected))
      |> Enum.map(fn {x, y} -> abs(x - y) end)
      |> Enum.max()

    assert worst <= 1.0e-5
  end
end
