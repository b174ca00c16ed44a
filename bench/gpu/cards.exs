# Several cards: whether {:gpu, 1} computes, tensors go from card to card, and functions over a mesh give what
# Nx.BinaryBackend does; and how many requests a second two partitions of a serving answer on two cards, beside one on one.
# One table; ends with 1 where something is wrong.
#
#   elixir bench/gpu/cards.exs                     on a machine with two cards, by FOLDER/run exec
#   CARDS=cpu elixir bench/gpu/cards.exs           all of it on the CPU, to try the script
# Read when the library is loaded.
Application.put_env(:emily, :matmul_precision, :f32, persistent: true)
{:ok, _} = Application.ensure_all_started(:emily)

cpu? = System.get_env("CARDS") == "cpu"
cards = if cpu?, do: [:cpu, :cpu], else: Enum.take(Emily.Device.cards(), 2)

if length(cards) < 2 do
  IO.puts(
    "#{length(cards)} GPU(s) are there, and two are needed: #{inspect(Emily.Native.devices())}"
  )

  System.halt(2)
end

[first, second] = cards
on = fn device -> {Emily.Backend, device: device} end
read = &Nx.backend_copy(&1, Nx.BinaryBackend)

waves = fn shape ->
  shape |> Nx.iota(type: :f32, backend: Nx.BinaryBackend) |> Nx.multiply(0.37) |> Nx.sin()
end

near? = fn got, expected ->
  [got, expected] = for x <- [read.(got), expected], do: Nx.as_type(x, :f32)
  scale = expected |> Nx.abs() |> Nx.reduce_max() |> Nx.max(1.0e-6)
  difference = got |> Nx.subtract(expected) |> Nx.abs() |> Nx.reduce_max() |> Nx.divide(scale)
  got.shape == expected.shape and Nx.to_number(difference) < 2.0e-3
end

evaluated = fn fun, args -> Nx.Defn.jit_apply(fun, args, compiler: Nx.Defn.Evaluator) end

# The halves of a tensor along an axis.
halves = fn tensor, axis ->
  size = div(elem(tensor.shape, axis), 2)
  for at <- [0, size], do: Nx.slice_along_axis(tensor, at, size, axis: axis)
end

sharded = fn fun, shardings, args ->
  mesh = %Nx.Mesh{name: "cards", shape: {2}}
  opts = [compiler: Emily.Compiler, input_shardings: shardings, devices: cards]
  Nx.Defn.shard_jit(fun, mesh, opts).(args)
end

layer = fn x, w, b -> x |> Nx.dot(w) |> Nx.add(b) |> Nx.max(0) end
[x, w, b] = for shape <- [{64, 128}, {128, 96}, {96}], do: waves.(shape)

loss = fn w, x, y -> Nx.mean(Nx.pow(Nx.subtract(Nx.tanh(Nx.dot(x, w)), y), 2)) end
step = fn w, x, y -> Nx.subtract(w, Nx.multiply(0.1, Nx.Defn.grad(w, &loss.(&1, x, y)))) end

loop = fn x ->
  Enum.reduce(1..6, x, fn n, x -> Nx.divide(Nx.add(x, Nx.dot(x, x)), 100 + n) end)
end

defmodule Turns do
  import Nx.Defn

  # Long enough to be recorded and run again.
  defn turns(x) do
    {_, x, _} =
      while {n = 0, x, start = x}, n < 50 do
        # Errors shrink from turn to turn.
        {n + 1, Nx.tanh(Nx.dot(x, x) / 64) / 2 + x / 3 + start / 4, start}
      end

    x
  end
end

checks = [
  {"the second card computes",
   fn ->
     a = Nx.backend_copy(x, on.(second))
     got = Nx.dot(Nx.exp(a), Nx.transpose(a))
     got.data.device == second and near?.(got, Nx.dot(Nx.exp(x), Nx.transpose(x)))
   end},
  {"compiled for the second card",
   fn ->
     got = Nx.Defn.jit_apply(loop, [waves.({48, 48})], compiler: Emily.Compiler, device: second)
     got.data.device == second and near?.(got, evaluated.(loop, [waves.({48, 48})]))
   end},
  {"kernels that are compiled when used: the same on each card",
   fn ->
     ids = Nx.remainder(Nx.iota({40}, backend: Nx.BinaryBackend), 13)

     gathered = fn x, ids ->
       x |> Nx.take(ids) |> Emily.Fast.rms_norm(Nx.broadcast(1.0, {128})) |> Nx.sort(axis: 1)
     end

     for device <- cards ++ Enum.reverse(cards), reduce: true do
       right? ->
         args = for t <- [x, ids], do: Nx.backend_copy(t, on.(device))
         got = Nx.Defn.jit_apply(gathered, args, compiler: Emily.Compiler, device: device)
         right? and near?.(got, evaluated.(gathered, [x, ids]))
     end
   end},
  {"a loop on each card, as if recorded",
   fn ->
     start = waves.({32, 32})
     expected = evaluated.(&Turns.turns/1, [start])

     for device <- [second, first, second], reduce: true do
       right? ->
         got =
           Nx.Defn.jit_apply(&Turns.turns/1, [start], compiler: Emily.Compiler, device: device)

         right? and near?.(got, expected)
     end
   end},
  {"from card to card and back",
   fn ->
     there =
       x |> Nx.backend_copy(on.(first)) |> Nx.multiply(2) |> Nx.backend_transfer(on.(second))

     back = there |> Nx.add(1) |> Nx.backend_transfer(on.(first))

     there.data.device == second and back.data.device == first and
       near?.(back, Nx.add(Nx.multiply(x, 2), 1)) and near?.(there, Nx.multiply(x, 2))
   end},
  {"64 MB there, many times",
   fn ->
     big = Nx.iota({4096, 4096}, type: :f32, backend: on.(first))
     sum = fn t -> t |> Nx.sum(axes: [1]) |> Nx.sum() |> Nx.to_number() end
     whole = sum.(big)
     Enum.all?(1..20, fn _ -> big |> Nx.backend_copy(on.(second)) |> sum.() == whole end)
   end},
  {"operands on both cards",
   fn ->
     [a, c] = [Nx.exp(Nx.backend_copy(x, on.(second))), Nx.exp(Nx.backend_copy(x, on.(first)))]
     sums = [Nx.add(a, c), Nx.subtract(c, a)]

     Enum.map(sums, & &1.data.device) == [second, first] and
       near?.(hd(sums), Nx.multiply(Nx.exp(x), 2)) and near?.(List.last(sums), Nx.multiply(x, 0))
   end},
  {"a tensor written and read again",
   fn ->
     a = Nx.negate(Nx.backend_copy(x, on.(second)))
     a |> Nx.serialize() |> IO.iodata_to_binary() |> Nx.deserialize() |> near?.(Nx.negate(x))
   end},
  {"a card that is not there is refused",
   fn ->
     try do
       Nx.tensor(1, backend: on.({:gpu, 63}))
       false
     rescue
       ArgumentError -> true
     end
   end},
  {"both at once, from many processes",
   fn ->
     1..64
     |> Task.async_stream(
       fn n ->
         device = Enum.at(cards, rem(n, 2))
         a = Nx.backend_copy(x, on.(device))

         near?.(
           Nx.dot(Nx.multiply(a, n), Nx.transpose(a)),
           Nx.dot(Nx.multiply(x, n), Nx.transpose(x))
         )
       end,
       timeout: :infinity,
       max_concurrency: 8
     )
     |> Enum.all?(&(&1 == {:ok, true}))
   end},
  {"a layer, by batches",
   fn ->
     args = for part <- halves.(x, 0), do: [part, w, b]
     results = sharded.(layer, [%{0 => [0]}, %{}, %{}], args)

     Enum.map(results, & &1.data.device) == cards and
       near?.(Nx.concatenate(Enum.map(results, read)), layer.(x, w, b))
   end},
  {"a layer, by columns",
   fn ->
     args = for {w, b} <- Enum.zip(halves.(w, 1), halves.(b, 0)), do: [x, w, b]
     results = sharded.(layer, [%{}, %{1 => [0]}, %{0 => [0]}], args)
     near?.(Nx.concatenate(Enum.map(results, read), axis: 1), layer.(x, w, b))
   end},
  {"a layer, by rows",
   fn ->
     args = for {x, w} <- Enum.zip(halves.(x, 1), halves.(w, 0)), do: [x, w, b]
     results = sharded.(layer, [%{1 => [0]}, %{0 => [0]}, %{}], args)

     Enum.map(results, & &1.data.device) == cards and
       Enum.all?(results, &near?.(&1, layer.(x, w, b)))
   end},
  {"a step of training, by batches",
   fn ->
     y = waves.({64, 96})
     args = for {x, y} <- Enum.zip(halves.(x, 0), halves.(y, 0)), do: [w, x, y]
     results = sharded.(step, [%{}, %{0 => [0]}, %{0 => [0]}], args)
     Enum.all?(results, &near?.(&1, evaluated.(step, [w, x, y])))
   end}
]

rows =
  for {name, check} <- checks do
    answer =
      try do
        if check.(), do: "right", else: "WRONG"
      rescue
        error -> "WRONG: #{Exception.message(error) |> String.slice(0, 300)}"
      end

    {name, answer}
  end

# Requests of products of matrices, the batches of a serving with as many partitions as there are cards.
side = if cpu?, do: 128, else: 4096
turns = if cpu?, do: 2, else: 24
type = if cpu?, do: :f32, else: :bf16

work = fn x ->
  Enum.reduce(1..turns, x, fn _, x -> Nx.divide(Nx.dot(x, x), side) end)
end

serving = fn name, options ->
  Nx.Serving.new(
    fn options ->
      run = Nx.Defn.jit(work, Keyword.delete(options, :batch_keys))

      weights =
        Nx.broadcast(Nx.tensor(1, type: type), {side, side})
        |> Nx.backend_copy(Nx.Defn.to_backend(options))

      fn _batch ->
        result = run.(weights)
        # One number of it, so that it is computed to its end.
        result
        |> Nx.slice([0, 0], [1, 1])
        |> Nx.reshape({1})
        |> Nx.backend_transfer(Nx.BinaryBackend)
      end
    end,
    [compiler: Emily.Compiler] ++ options
  )
  |> then(
    &{Nx.Serving, serving: &1, name: name, batch_size: 1, batch_timeout: 0, partitions: true}
  )
end

measured = fn name, options, clients ->
  {:ok, supervisor} = Supervisor.start_link([serving.(name, options)], strategy: :one_for_one)
  request = fn -> Nx.Serving.batched_run(name, Nx.Batch.stack([Nx.tensor(1)])) end
  # Every partition has computed, and every client has been served.
  1..(clients * 4)
  |> Task.async_stream(fn _ -> request.() end, max_concurrency: clients, timeout: :infinity)
  |> Stream.run()

  requests = if cpu?, do: 20, else: 400

  {micros, _} =
    :timer.tc(fn ->
      1..requests
      |> Task.async_stream(fn _ -> request.() end, max_concurrency: clients, timeout: :infinity)
      |> Stream.run()
    end)

  Supervisor.stop(supervisor)
  requests * 1.0e6 / micros
end

device = if cpu?, do: :cpu, else: :gpu
one = measured.(One, [device: first, max_concurrency: 1], 4)
shared = measured.(Shared, [device: if(cpu?, do: :cpu, else: {:gpu, 0}), max_concurrency: 2], 8)
two = measured.(Two, [device: device, max_concurrency: 2], 8)
again = measured.(Again, [device: first, max_concurrency: 1], 4)

big = Nx.iota({8192, 8192}, type: :f32, backend: on.(first))
Emily.eval(big)
copy = fn -> big |> Nx.backend_copy(on.(second)) |> Emily.eval() end
for _ <- 1..3, do: copy.()
micros = for(_ <- 1..10, do: elem(:timer.tc(copy), 0)) |> Enum.min()

figures = [
  {"requests a second, one card", Float.round(one, 1)},
  {"requests a second, two partitions on one card", Float.round(shared, 1)},
  {"requests a second, two partitions on two cards", Float.round(two, 1)},
  {"requests a second, one card, again", Float.round(again, 1)},
  {"two cards / one", Float.round(two / max(one, again), 2)},
  {"256 MiB from card to card, GB/s", Float.round(268.435456e6 / micros / 1000, 1)},
  {"turns of loops run again", Emily.Native.replayed_turns()}
]

IO.puts("| | |\n|---|---|")
for {name, value} <- rows ++ figures, do: IO.puts("| #{name} | #{value} |")
if Enum.any?(rows, fn {_, answer} -> answer != "right" end), do: System.halt(1)
