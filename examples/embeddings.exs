# Sentence embeddings with all-MiniLM-L6-v2, loaded by Bumblebee, run on Emily.Backend.
#
#     mix run examples/embeddings.exs
#     mix run examples/embeddings.exs --device gpu "A first sentence" "A second one"

Code.require_file("support/demo.ex", __DIR__)

defmodule LeftMLX do
  def count(_event, _measurements, %{op: op}, table) do
    :ets.update_counter(table, op, 1, {op, 0})
  end
end

# The longest input that the model was trained for (sentence_bert_config.json).
max_length = 256

{device, sentences} = Demo.arguments!(System.argv())
dir = Demo.model_dir!()

# Parameters, inputs and every tensor made on the way live on MLX. Operations
# that MLX lacks would run on Nx.BinaryBackend; each of them is counted.
Nx.global_default_backend({Emily.Backend, device: device})
left_mlx = :ets.new(:left_mlx, [:public])
:telemetry.attach(:left_mlx, [:emily, :fallback, :stop], &LeftMLX.count/4, left_mlx)

{:ok, model} =
  Demo.step("Loading the model", fn -> Bumblebee.load_model({:local, dir}) end)

{:ok, tokenizer} =
  Demo.step("Loading the tokenizer", fn -> Bumblebee.load_tokenizer({:local, dir}) end)

# Sentences are padded to the longest of them.
longest = Nx.axis_size(Bumblebee.apply_tokenizer(tokenizer, sentences)["input_ids"], 1)

serving =
  model
  |> Emily.Bumblebee.FastKernels.apply()
  |> Bumblebee.Text.text_embedding(tokenizer,
    output_attribute: :hidden_state,
    output_pool: :mean_pooling,
    embedding_processor: :l2_norm,
    compile: [batch_size: length(sentences), sequence_length: min(longest, max_length)],
    defn_options: [compiler: Emily.Compiler]
  )

embed = fn -> for %{embedding: embedding} <- Nx.Serving.run(serving, sentences), do: embedding end

embeddings = Demo.step("Embedding the sentences", embed)

# A serving answers with tensors of Nx.BinaryBackend.
matrix = embeddings |> Nx.stack() |> Nx.backend_transfer(Nx.default_backend())
rows = matrix |> Nx.dot([1], matrix, [1]) |> Nx.to_batched(1) |> Enum.map(&Nx.to_flat_list/1)
time = Demo.step("Timing", fn -> Demo.time(embed) end)

Demo.report(
  "all-MiniLM-L6-v2 with Bumblebee on Emily.Backend",
  sentences,
  rows,
  time,
  device,
  Map.new(:ets.tab2list(left_mlx))
)
