# The most memory that a step of training takes, beside what it must: parameters, Adam's two moments, and activations, which
# are what the gradient of each layer needs, counted by hand. `mix run bench/training_memory.exs`, with the state donated and
# without; beside it the least time of a step, for which both take turns.
Nx.global_default_backend({Emily.Backend, device: :cpu})

defmodule Bench.TrainingMemory do
  @moduledoc false
  import Nx.Defn

  @f32 4

  def cases do
    [
      %{
        name: "MLP: 1024-1024-1024-1024-10, batch 256",
        loss: &mlp/3,
        sizes: [{1024, 1024}, {1024, 1024}, {1024, 1024}, {1024, 10}],
        input: {256, 1024},
        # The input of each layer.
        activations: 4 * 256 * 1024
      },
      %{
        name: "CNN: four convolutions of 64 to 256 channels, {32, 64, 64, 3}",
        loss: &cnn/3,
        sizes: [
          {64, 3, 3, 3},
          {128, 64, 3, 3},
          {256, 128, 3, 3},
          {256, 256, 3, 3},
          {1024 * 4, 10}
        ],
        input: {32, 3, 64, 64},
        # The input of each layer.
        activations: 32 * (3 * 64 * 64 + 64 * 32 * 32 + 128 * 16 * 16 + 256 * 8 * 8 + 256 * 4 * 4)
      },
      %{
        name: "transformer: two layers of 512, 8 heads, {8, 128, 512}",
        loss: &transformer/3,
        sizes:
          List.flatten(
            for _ <- 1..2, do: [List.duplicate({512, 512}, 4), {512, 2048}, {2048, 512}]
          ) ++
            [{512, 10}],
        input: {8, 128, 512},
        # The inputs of products, and of the norms: of each layer x, its norm, q, k, v, what is attended, the sum, its
        # norm, then what is between the two dense layers, and the weights of attention; and at the end two means.
        activations: 2 * (8 * 1024 * 512 + 1024 * 2048 + 8 * 8 * 128 * 128) + 2 * 8 * 512
      }
    ]
  end

  def bytes(%{sizes: sizes, activations: activations}) do
    parameters = @f32 * Enum.sum(for size <- sizes, do: Tuple.product(size))
    {parameters, 2 * parameters, @f32 * activations}
  end

  def state(sizes) do
    weights =
      for {shape, at} <- Enum.with_index(sizes) do
        {weight, _} = Nx.Random.normal(Nx.Random.key(at), 0.0, 0.03, shape: shape)
        weight
      end

    zeros = fn -> weights |> Enum.map(&Nx.broadcast(0.0, &1.shape)) |> List.to_tuple() end
    {List.to_tuple(weights), zeros.(), zeros.()}
  end

  def batch(shape) do
    {x, _} = Nx.Random.uniform(Nx.Random.key(9), shape: shape)
    {x, Nx.equal(Nx.remainder(Nx.iota({elem(shape, 0), 1}), 10), Nx.iota({1, 10}))}
  end

  deftransform step({weights, first, second}, x, y, loss) do
    gradients = grad(weights, &loss.(&1, x, y))
    first = zip(first, gradients, &Nx.add(Nx.multiply(0.9, &1), Nx.multiply(0.1, &2)))

    second =
      zip(second, gradients, fn v, g ->
        Nx.add(Nx.multiply(0.999, v), Nx.multiply(Nx.multiply(0.001, g), g))
      end)

    updates =
      zip(first, second, &Nx.divide(Nx.multiply(0.001, &1), Nx.add(Nx.sqrt(&2), 1.0e-8)))

    {zip(weights, updates, &Nx.subtract/2), first, second}
  end

  defp zip(a, b, fun),
    do: Enum.zip_with(Tuple.to_list(a), Tuple.to_list(b), fun) |> List.to_tuple()

  defnp mlp({a, b, c, d}, x, y),
    do: x |> layer(a) |> layer(b) |> layer(c) |> Nx.dot(d) |> cross_entropy(y)

  defnp layer(x, w), do: Nx.max(Nx.dot(x, w), 0)

  defnp cnn({a, b, c, d, e}, x, y) do
    x = x |> conv(a) |> conv(b) |> conv(c) |> conv(d)
    x |> Nx.reshape({:auto, 4096}) |> Nx.dot(e) |> cross_entropy(y)
  end

  defnp conv(x, w), do: Nx.max(Nx.conv(x, w, padding: :same, strides: [2, 2]), 0)

  deftransform transformer(weights, x, y) do
    {layers, [last]} = weights |> Tuple.to_list() |> Enum.split(-1)

    layers
    |> Enum.chunk_every(6)
    |> Enum.reduce(x, &block(&2, List.to_tuple(&1)))
    |> Nx.mean(axes: [1])
    |> Nx.dot(last)
    |> cross_entropy(y)
  end

  defnp block(x, {q, k, v, o, up, down}) do
    n = norm(x)
    scores = Nx.dot(heads(n, q), [3], [0, 1], heads(n, k), [3], [0, 1]) / 8
    weights = softmax(scores)
    attended = Nx.dot(weights, [3], [0, 1], heads(n, v), [2], [0, 1])
    x = x + Nx.dot(attended |> Nx.transpose(axes: [0, 2, 1, 3]) |> Nx.reshape({8, 128, 512}), o)
    x + Nx.dot(Nx.max(Nx.dot(norm(x), up), 0), down)
  end

  defnp heads(x, w),
    do: Nx.dot(x, w) |> Nx.reshape({8, 128, 8, 64}) |> Nx.transpose(axes: [0, 2, 1, 3])

  defnp softmax(x) do
    e = Nx.exp(x - stop_grad(Nx.reduce_max(x, axes: [-1], keep_axes: true)))
    e / Nx.sum(e, axes: [-1], keep_axes: true)
  end

  defnp norm(x) do
    x * Nx.rsqrt(Nx.mean(x * x, axes: [-1], keep_axes: true) + 1.0e-6)
  end

  defnp cross_entropy(logits, y) do
    -Nx.mean(Nx.sum(y * (logits - Nx.logsumexp(logits, axes: [1], keep_axes: true)), axes: [1]))
  end
end

alias Bench.TrainingMemory

eval = fn state ->
  for tensor <- Nx.Defn.Composite.flatten_list([state]), do: Emily.Native.eval(tensor.data.ref)
  state
end

mib = &Float.round(&1 / 1_048_576, 1)
IO.puts("| step | state | parameters | Adam | activations | peak | / all three | ms a step |")
IO.puts("|---|---|---|---|---|---|---|---|")

for %{name: name, loss: loss} = one <- TrainingMemory.cases() do
  {x, y} = eval.(TrainingMemory.batch(one.input))
  {parameters, moments, activations} = TrainingMemory.bytes(one)

  run = fn donate ->
    step =
      Nx.Defn.jit(&TrainingMemory.step(&1, &2, &3, loss),
        compiler: Emily.Compiler,
        donate: donate
      )

    fn state ->
      state = eval.(step.(state, x, y))
      :erlang.garbage_collect()
      state
    end
  end

  runs = for donate <- [[], [0]], do: run.(donate)
  begun = fn -> eval.(TrainingMemory.state(one.sizes)) end
  times = fn run, count, state -> Enum.reduce(1..count, state, fn _, state -> run.(state) end) end

  peaks =
    for run <- runs do
      state = times.(run, 3, begun.())
      Emily.Memory.clear_cache()
      Emily.Memory.reset_peak()
      times.(run, 5, state)
      peak = Emily.Memory.stats().peak
      :erlang.garbage_collect()
      peak
    end

  {_, rounds} =
    Enum.reduce(1..10, {for(_ <- runs, do: begun.()), []}, fn _, {states, rounds} ->
      {times, states} =
        [runs, states]
        |> Enum.zip_with(fn [run, state] -> :timer.tc(fn -> run.(state) end) end)
        |> Enum.unzip()

      {states, [times | rounds]}
    end)

  least = Enum.zip_with(rounds, &Enum.min/1)

  for {given, peak, time} <- Enum.zip([~w(kept donated), peaks, least]) do
    ratio = Float.round(peak / (parameters + moments + activations), 2)
    ms = Float.round(time / 1000, 1)

    IO.puts(
      "| #{name} | #{given} | #{mib.(parameters)} | #{mib.(moments)} | #{mib.(activations)} | #{mib.(peak)} | #{ratio} | #{ms} |"
    )
  end
end
