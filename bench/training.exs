# Steps of training, convolutions and an LSTM, beside XLA through JAX, in turns in one run:
#
#     mix run bench/training.exs PYTHON [ROUNDS]
#
# PYTHON is one that has jax and numpy. Each figure is the median of its rounds' medians; both sides are warmed up, and
# both give a number that is compared first.

defmodule Bench.Training do
  import Nx.Defn

  @rate 0.01

  # Numbers that both sides make alike.
  deftransform uniform(shape, scale) do
    count = Tuple.product(shape)

    Nx.iota({count}, type: :s64)
    |> Nx.multiply(7919)
    |> Nx.remainder(2003)
    |> Nx.subtract(1001)
    |> Nx.multiply(scale / 1001)
    |> Nx.as_type(:f32)
    |> Nx.reshape(shape)
  end

  deftransform descend(weights, grads) do
    Enum.zip_with(
      Tuple.to_list(weights),
      Tuple.to_list(grads),
      &Nx.subtract(&1, Nx.multiply(&2, @rate))
    )
    |> List.to_tuple()
  end

  defn loss(logits, labels) do
    shifted = logits - Nx.reduce_max(logits, axes: [1], keep_axes: true)
    log_sum = shifted |> Nx.exp() |> Nx.sum(axes: [1], keep_axes: true) |> Nx.log()
    -Nx.mean(Nx.sum((shifted - log_sum) * labels, axes: [1]))
  end

  defn mlp(x, {w1, b1, w2, b2, w3, b3}) do
    x = Nx.max(Nx.dot(x, w1) + b1, 0)
    x = Nx.max(Nx.dot(x, w2) + b2, 0)
    Nx.dot(x, w3) + b3
  end

  defn mlp_step(weights, x, labels) do
    {loss, grads} = value_and_grad(weights, &loss(mlp(x, &1), labels))
    {loss, descend(weights, grads)}
  end

  defn pool(x) do
    Nx.window_max(x, {1, 1, 2, 2}, strides: [1, 1, 2, 2])
  end

  defn cnn(x, {c1, c2, c3, w}) do
    x = x |> Nx.conv(c1, padding: :same) |> Nx.max(0) |> pool()
    x = x |> Nx.conv(c2, padding: :same) |> Nx.max(0) |> pool()
    x = x |> Nx.conv(c3, padding: :same) |> Nx.max(0)
    x |> Nx.mean(axes: [2, 3]) |> Nx.dot(w)
  end

  defn cnn_step(weights, x, labels) do
    {loss, grads} = value_and_grad(weights, &loss(cnn(x, &1), labels))
    {loss, descend(weights, grads)}
  end

  defn lstm(x, w, u, b) do
    zeros = Nx.broadcast(0.0, {32, 128})

    {_, h, _, _, _, _, _} =
      while {i = 0, h = zeros, c = zeros, x, w, u, b}, i < 100 do
        gates = Nx.dot(x[i], w) + Nx.dot(h, u) + b
        input = Nx.sigmoid(gates[[.., 0..127]])
        forget = Nx.sigmoid(gates[[.., 128..255]])
        cell = Nx.tanh(gates[[.., 256..383]])
        output = Nx.sigmoid(gates[[.., 384..511]])
        c = forget * c + input * cell
        {i + 1, output * Nx.tanh(c), c, x, w, u, b}
      end

    h
  end

  defn conv3(x, w), do: Nx.conv(x, w, padding: :same)
  defn conv7(x, w), do: Nx.conv(x, w, padding: [{3, 3}, {3, 3}], strides: 2)
  defn depthwise(x, w), do: Nx.conv(x, w, padding: :same, feature_group_size: 64)
  defn max_pool(x), do: Nx.window_max(x, {1, 1, 3, 3}, strides: [1, 1, 2, 2], padding: :same)

  def figures do
    labels = fn batch ->
      Nx.equal(Nx.iota({batch, 10}, axis: 1), Nx.remainder(Nx.iota({batch, 1}), 10))
      |> Nx.as_type(:f32)
    end

    mlp =
      {uniform({784, 512}, 0.05), uniform({512}, 0.01), uniform({512, 512}, 0.05),
       uniform({512}, 0.01), uniform({512, 10}, 0.05), uniform({10}, 0.01)}

    cnn =
      {uniform({32, 3, 3, 3}, 0.2), uniform({64, 32, 3, 3}, 0.1), uniform({64, 64, 3, 3}, 0.1),
       uniform({64, 10}, 0.1)}

    [
      conv3: {&conv3/2, [uniform({8, 64, 56, 56}, 1.0), uniform({64, 64, 3, 3}, 0.1)]},
      conv7: {&conv7/2, [uniform({8, 3, 224, 224}, 1.0), uniform({64, 3, 7, 7}, 0.1)]},
      depthwise: {&depthwise/2, [uniform({8, 64, 56, 56}, 1.0), uniform({64, 1, 3, 3}, 0.1)]},
      max_pool: {&max_pool/1, [uniform({8, 64, 112, 112}, 1.0)]},
      mlp: {&mlp_step/3, [mlp, uniform({128, 784}, 1.0), labels.(128)]},
      cnn: {&cnn_step/3, [cnn, uniform({32, 3, 32, 32}, 1.0), labels.(32)]},
      lstm:
        {&lstm/4,
         [
           uniform({100, 32, 128}, 1.0),
           uniform({128, 512}, 0.1),
           uniform({128, 512}, 0.1),
           uniform({512}, 0.1)
         ]}
    ]
  end

  def first(result) when is_tuple(result), do: result |> elem(0) |> Nx.to_number()
  def first(result), do: result |> Nx.abs() |> Nx.mean() |> Nx.to_number()

  def wait(result), do: result |> List.wrap() |> Enum.flat_map(&refs/1) |> Emily.Native.eval()
  defp refs(%Nx.Tensor{data: %{ref: ref}}), do: [ref]
  defp refs(tuple), do: tuple |> Tuple.to_list() |> Enum.flat_map(&refs/1)

  def median(list), do: list |> Enum.sort() |> Enum.at(div(length(list), 2))

  def ask(port, line) do
    Port.command(port, line <> "\n")

    receive do
      {^port, {:data, {:eol, answer}}} -> answer |> String.split() |> Enum.map(&String.to_float/1)
      {^port, {:exit_status, status}} -> raise "Python ended with status #{status}"
    end
  end
end

alias Bench.Training
Nx.default_backend(Emily.Backend)

{python, rounds} =
  case System.argv() do
    [python] -> {python, 3}
    [python, rounds] -> {python, String.to_integer(rounds)}
  end

script = Path.join(__DIR__, "training.py")
port = Port.open({:spawn_executable, python}, [:binary, :exit_status, line: 1000, args: [script]])

for {name, {fun, args}} <- Training.figures() do
  step = Nx.Defn.compile(fun, args, compiler: Emily.Compiler)
  run = fn -> apply(step, args) |> Training.wait() end
  here = Training.first(apply(step, args))
  [there] = Training.ask(port, "#{name} value")
  for _ <- 1..3, do: run.()

  times =
    for _ <- 1..rounds do
      ours = for _ <- 1..7, do: elem(:timer.tc(run, :nanosecond), 0) / 1.0e6
      {Training.median(ours), Training.ask(port, "#{name} time") |> hd()}
    end

  {ours, theirs} = Enum.unzip(times)
  {ours, theirs} = {Training.median(ours), Training.median(theirs)}

  IO.puts(
    :io_lib.format("~-10s ~10.2f ms, XLA ~10.2f ms, ratio ~.2f, differ by ~.2e", [
      name,
      ours,
      theirs,
      ours / theirs,
      abs(here - there) / abs(there)
    ])
  )
end
