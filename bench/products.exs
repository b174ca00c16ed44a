# Products of matrices alone and beside other work: mix run bench/products.exs [rounds]
#
# On one thread and on all that the setting allows, in turns; then the same beside a busy loop for each core. Each
# cell is the median of the rounds and the least, in microseconds for one product, evaluated and read. Of the last
# shape, eight processes compute at once, each on a stream of its own: the time for all of them.
Code.require_file("timing.exs", __DIR__)

defmodule Bench.Products do
  alias Bench.Timing
  alias Emily.Native

  @shapes [
    {[64, 64], [64, 64]},
    {[100, 100], [100, 100]},
    {[128, 128], [128, 128]},
    {[256, 256], [256, 256]},
    {[512, 512], [512, 512]},
    {[1024, 1024], [1024, 1024]},
    {[2048, 2048], [2048, 2048]},
    {[1, 4096], [4096, 11_008]},
    {[128, 784], [784, 512]},
    {[8, 128, 64], [8, 64, 128]},
    {[12, 384, 32], [12, 32, 384]}
  ]

  def run(rounds) do
    settings = [1, :all]
    IO.puts("#{System.schedulers()} cores, #{Native.threads()} threads, #{rounds} rounds\n")

    IO.puts(
      "| product | one thread | all | one, beside work | all, beside work |\n|---|---|---|---|---|"
    )

    for {a, b} <- @shapes do
      inputs = {full(a), full(b)}
      alone = measure(inputs, settings, rounds)
      beside = beside_work(fn -> measure(inputs, settings, rounds) end)
      IO.puts(Enum.join(["| #{shape(a)} x #{shape(b)}" | alone ++ beside], " | ") <> " |")
    end

    at_once(rounds)
  end

  defp measure({a, b}, settings, rounds) do
    calls = max(div(200_000_000, work(a, b)), 1) |> min(200)

    taken =
      for _ <- 1..rounds, threads <- settings do
        Native.set_threads(threads)
        time = time(fn -> for _ <- 1..calls, do: product(a, b) end)
        {threads, time / calls}
      end

    for threads <- settings do
      times = for {^threads, time} <- taken, do: time
      "#{figure(Timing.middle(times))} (#{figure(Enum.min(times))})"
    end
  end

  defp at_once(rounds) do
    x = full([512, 512])
    Native.set_threads(:all)
    streams = for _ <- 1..8, do: Native.stream_new(:cpu)

    times =
      for _ <- 1..rounds do
        alone = time(fn -> for stream <- streams, do: product(x, x, stream) end)

        together =
          time(fn ->
            streams
            |> Enum.map(&Task.async(fn -> product(x, x, &1) end))
            |> Task.await_many(:infinity)
          end)

        {alone, together}
      end

    {alone, together} = Enum.unzip(times)

    IO.puts(
      "\nEight of [512, 512] x [512, 512]: one after another #{figure(Timing.middle(alone))}, " <>
        "at once #{figure(Timing.middle(together))}"
    )
  end

  defp beside_work(fun) do
    loops =
      for _ <- 1..System.schedulers(), do: Port.open({:spawn, "sh -c 'while :; do :; done'"}, [])

    pids = for port <- loops, do: Port.info(port)[:os_pid]
    result = fun.()
    for pid <- pids, do: System.cmd("kill", ["-9", "#{pid}"])
    result
  end

  defp full(shape) do
    [x] = Native.run([{:full, shape, 0.5, :f32}])
    Native.to_binary(x)
    x
  end

  defp product(a, b, device \\ :cpu) do
    [x] = Native.run([{:matmul, a, b}], device)
    Native.to_binary(x)
  end

  defp work(a, b),
    do: Tuple.product(Native.shape(a)) * elem(Native.shape(b), tuple_size(Native.shape(b)) - 1)

  defp shape(shape), do: inspect(shape, charlists: :as_lists)
  defp time(fun), do: fun |> :timer.tc(:nanosecond) |> elem(0) |> div(1000)
  defp figure(microseconds), do: microseconds |> round() |> Integer.to_string()
end

rounds =
  case System.argv() do
    [] -> 5
    [rounds] -> String.to_integer(rounds)
  end

Bench.Products.run(rounds)
