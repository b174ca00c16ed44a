# Sentence embeddings with all-MiniLM-L6-v2, loaded by Bumblebee, run on Emily.Backend.
#
#     mix run examples/embeddings.exs
#     mix run examples/embeddings.exs --device gpu "A first sentence" "A second one"

Code.require_file("support/demo.ex", __DIR__)
Code.require_file("support/embedder.ex", __DIR__)

defmodule LeftMLX do
  def count(_event, _measurements, %{op: op}, table) do
    :ets.update_counter(table, op, 1, {op, 0})
  end
end

{device, sentences} = Demo.arguments!(System.argv())
dir = Demo.model_dir!()

# Parameters, inputs and every tensor made on the way live on MLX. Operations
# that MLX lacks would run on Nx.BinaryBackend; each of them is counted.
Nx.global_default_backend({Emily.Backend, device: device})
left_mlx = :ets.new(:left_mlx, [:public])
:telemetry.attach(:left_mlx, [:emily, :fallback, :stop], &LeftMLX.count/4, left_mlx)

serving = Embedder.serving!(dir, sentences)
embed = fn -> Embedder.embed(serving, sentences) end
matrix = Demo.step("Embedding the sentences", embed)
time = Demo.step("Timing", fn -> Demo.time(embed) end)

Demo.report(
  "all-MiniLM-L6-v2 with Bumblebee on Emily.Backend",
  sentences,
  Embedder.similarities(matrix, matrix),
  time,
  device,
  Map.new(:ets.tab2list(left_mlx))
)
