# Sorts texts under labels that no model was trained for, by what they mean.
#
#     mix run examples/zero_shot.exs
#     mix run examples/zero_shot.exs --label sport --label weather "It rained all day."
#
# all-MiniLM-L6-v2 embeds each text, and each label as the sentence "This is about ...": the nearer
# a label's sentence (by the cosine of the angle), the better it fits. It is no model of entailment, as
# Bumblebee.Text.zero_shot_classification/4 takes: it says what a text is about, and misses a "not".

Code.require_file("support/demo.ex", __DIR__)
Code.require_file("support/embedder.ex", __DIR__)

defmodule ZeroShot do
  @texts [
    "Where is my parcel? It should have been here on Monday.",
    "I was charged twice and want my money back.",
    "The app closes as soon as I open it.",
    "What a friendly team, thank you so much!"
  ]
  @labels ["a late delivery", "a refund", "a software bug", "praise"]

  # The columns of a bar for a cosine of one.
  @bar 40

  def arguments!(argv) do
    {options, texts} =
      try do
        OptionParser.parse!(argv, strict: [device: :string, label: :keep])
      rescue
        error in OptionParser.ParseError -> Demo.stop(Exception.message(error))
      end

    labels = Keyword.get_values(options, :label)

    {
      Demo.device!(options[:device]),
      if(texts == [], do: @texts, else: texts),
      if(labels == [], do: @labels, else: Enum.uniq(labels))
    }
  end

  def sentence(label), do: "This is about #{label}."

  @doc """
  The labels of a text with their cosines, the best first.
  """
  def ranked(cosines, labels), do: labels |> Enum.zip(cosines) |> Enum.sort_by(&(-elem(&1, 1)))

  def show(text, ranked) do
    width = ranked |> Enum.map(fn {label, _} -> String.length(label) end) |> Enum.max()
    IO.puts("\n#{text}")

    for {label, cosine} <- ranked do
      bar = String.duplicate("█", round(@bar * max(cosine, 0)))
      number = cosine |> :erlang.float_to_binary(decimals: 3) |> String.pad_leading(6)
      IO.puts(String.trim_trailing("  #{String.pad_trailing(label, width)}  #{number}  #{bar}"))
    end
  end
end

{device, texts, labels} = ZeroShot.arguments!(System.argv())
dir = Demo.model_dir!()
Nx.global_default_backend({Emily.Backend, device: device})

all = texts ++ Enum.map(labels, &ZeroShot.sentence/1)
serving = Embedder.serving!(dir, all)
vectors = Demo.step("Embedding texts and labels", fn -> Embedder.embed(serving, all) end)
{text_vectors, label_vectors} = {vectors[0..(length(texts) - 1)], vectors[length(texts)..-1//1]}

for {text, cosines} <- Enum.zip(texts, Embedder.similarities(text_vectors, label_vectors)),
    do: ZeroShot.show(text, ZeroShot.ranked(cosines, labels))
