# Products of matrices: mix run bench/products.exs [rounds] [python]
#
# Alone, on one thread and on all that the setting allows, in turns with XLA and NumPy where a Python with jax and numpy
# is named; then the same beside a busy loop for each core. Each cell is the median of the rounds, in which a figure is a
# median too, and the least, in microseconds for one product, evaluated and read. Of the last shape, eight processes
# compute at once, each on a stream of its own: the time for all of them.
Code.require_file("timing.exs", __DIR__)

defmodule Bench.Products do
  alias Bench.Timing
  alias Emily.Native

  # The type, the left and the right side, and whether the right one lies transposed.
  @products [
    {:f32, [1, 4096], [4096, 11_008], false},
    {:f32, [1, 4096], [11_008, 4096], true},
    {:bf16, [1, 4096], [4096, 11_008], false},
    {:bf16, [1, 4096], [11_008, 4096], true},
    {:f16, [1, 4096], [11_008, 4096], true},
    {:f32, [8, 4096], [4096, 11_008], false},
    {:f32, [1, 576], [576, 1536], false},
    {:f32, [1, 576], [49_152, 576], true},
    {:f32, [2000, 8, 8], [2000, 8, 8], false},
    {:f32, [64, 64], [64, 64], false},
    {:f32, [100, 100], [100, 100], false},
    {:f32, [256, 256], [256, 256], false},
    {:bf16, [256, 256], [256, 256], false},
    {:f32, [1024, 1024], [1024, 1024], false},
    {:bf16, [1024, 1024], [1024, 1024], false},
    {:f32, [2048, 2048], [2048, 2048], false},
    {:f32, [128, 784], [784, 512], false},
    {:f32, [256, 576], [576, 1536], false},
    {:f32, [10_000, 32], [32, 32], false},
    {:f32, [128, 10_000], [10_000, 128], false},
    {:f32, [8, 128, 64], [8, 64, 128], false},
    {:f32, [12, 384, 32], [12, 384, 32], true}
  ]

  def run(rounds, python) do
    peer = python && start(python)
    names = ["one thread", "all"] ++ if(peer, do: ["XLA", "NumPy"], else: [])
    titles = names ++ ["one, beside work", "all, beside work"]
    IO.puts("#{System.schedulers()} cores, #{Native.threads()} threads, #{rounds} rounds\n")
    if peer, do: bandwidth(peer, rounds)
    IO.puts("| product | #{Enum.join(titles, " | ")} |")
    IO.puts("|---|" <> String.duplicate("---|", length(titles)))

    for product <- @products do
      inputs = inputs(product)
      alone = measure(product, inputs, sides(product, peer), rounds)
      beside = beside_work(fn -> measure(product, inputs, sides(product, nil), rounds) end)
      IO.puts("| #{Enum.join([title(product) | alone ++ beside], " | ")} |")
    end

    at_once(rounds)
  end

  defp start(python) do
    script = Path.join(__DIR__, "products.py")
    Port.open({:spawn_executable, python}, [:binary, line: 1000, args: [script]])
  end

  # Two threads read 100 MB for a product of two vectors.
  defp bandwidth(peer, rounds) do
    times = for _ <- 1..rounds, do: ask(peer, "read f32 1 1 0 3")
    IO.puts("NumPy reads #{Float.round(100_000 / Enum.min(times), 1)} GB/s at best\n")
  end

  defp sides(_product, nil), do: [1, :all]
  defp sides({:f32, _, _, _}, peer), do: [1, :all, {peer, "xla"}, {peer, "numpy"}]
  defp sides(_half, peer), do: [1, :all, {peer, "xla"}]

  defp measure(product, inputs, sides, rounds) do
    calls = max(div(200_000_000, work(product)), 3) |> min(200)

    taken =
      for _ <- 1..rounds, side <- sides do
        Timing.settle()
        {side, time(side, product, inputs, calls)}
      end

    cells =
      for side <- sides do
        times = for {^side, time} <- taken, do: time
        "#{figure(Timing.middle(times))} (#{figure(Enum.min(times))})"
      end

    if length(sides) == 3, do: cells ++ [""], else: cells
  end

  defp time({peer, library}, {type, a, b, transposed}, _inputs, calls) do
    flag = if transposed, do: 1, else: 0
    ask(peer, "#{library} #{type} #{Enum.join(a, ",")} #{Enum.join(b, ",")} #{flag} #{calls}")
  end

  defp time(threads, _product, {a, b}, calls) do
    Native.set_threads(threads)
    product(a, b)
    Timing.middle(for _ <- 1..calls, do: time(fn -> product(a, b) end))
  end

  defp ask(peer, line) do
    Port.command(peer, [line, ?\n])

    receive do
      {^peer, {:data, {:eol, answer}}} -> answer |> Float.parse() |> elem(0)
    end
  end

  defp at_once(rounds) do
    x = full([512, 512], :f32)
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

  defp inputs({type, a, b, transposed}) do
    right = full(b, type)
    right = if transposed, do: turned(right), else: right
    {full(a, type), right}
  end

  defp turned(x) do
    rank = tuple_size(Native.shape(x))
    axes = Enum.to_list(0..(rank - 3)//1) ++ [rank - 1, rank - 2]
    [y] = Native.run([{:transpose, x, axes}], :cpu)
    y
  end

  defp full(shape, type) do
    [x] = Native.run([{:full, shape, 0.5, type}], :cpu)
    Native.to_binary(x)
    x
  end

  defp product(a, b, device \\ :cpu) do
    [x] = Native.run([{:matmul, a, b}], device)
    Native.to_binary(x)
  end

  defp work({_, a, b, transposed}),
    do: Enum.product(a) * if(transposed, do: Enum.at(b, -2), else: List.last(b))

  defp title({type, a, b, transposed}),
    do: "#{type} #{shape(a)} x #{shape(b)}#{if transposed, do: ", transposed"}"

  defp shape(shape), do: inspect(shape, charlists: :as_lists)
  defp time(fun), do: fun |> :timer.tc(:nanosecond) |> elem(0) |> Kernel./(1000)
  defp figure(microseconds), do: microseconds |> round() |> Integer.to_string()
end

{rounds, python} =
  case System.argv() do
    [] -> {5, nil}
    [rounds] -> {String.to_integer(rounds), nil}
    [rounds, python] -> {String.to_integer(rounds), python}
  end

Bench.Products.run(rounds, python)
