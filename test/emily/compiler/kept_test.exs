defmodule Emily.Compiler.KeptTest do
  # Recorded turns of loops that later runs go on with. Alone, as it counts the turns of the whole VM.
  use Emily.CompilerCase, async: false

  import Nx.Defn

  defp row, do: Nx.iota({512}, type: :f32) |> Nx.divide(512)
  defp turns(n), do: Nx.tensor(n, type: :s32)

  defp built(fun, arguments) do
    templates = Enum.map(arguments, &Nx.to_template/1)
    Nx.Defn.compile(fun, templates, compiler: Emily.Compiler)
  end

  defn counted(x, n) do
    # The cast is computed once a run, before the loop, which reads it.
    while {x, i = 0, n}, i < n do
      {Nx.select(Nx.logical_and(Nx.tensor(1), i < 1000), Nx.cos(x) + i, x), i + 1, n}
    end
  end

  # Linux alone has what MLX calls taken its way through Emily.
  if :os.type() == {:unix, :linux} and System.get_env("EMILY_KERNELS") != "off" do
    # Threads that have ended a program wait for the next one, the last first: the same thread runs all that follows alone.
    test "a loop that was recorded is run by its recording alone, until it is forgotten" do
      run = built(&counted/2, [row(), turns(0)])

      turns_of = fn x, n ->
        before = Emily.Native.replayed_turns()
        counted = run.(x, turns(n))
        {Emily.Native.replayed_turns() - before, Nx.to_binary(elem(counted, 0))}
      end

      # Other tests may have run the same program.
      Emily.Memory.clear_cache()
      x = Nx.backend_copy(row(), Emily.Backend)
      {first, twenty} = turns_of.(x, 20)
      assert first in 17..18
      assert turns_of.(x, 20) == {20, twenty}
      assert {1, _} = turns_of.(Nx.multiply(x, 2), 1)
      assert {0, binary} = turns_of.(x, 0)
      assert binary == Nx.to_binary(x)
      assert turns_of.(x, 20) == {20, twenty}
      Emily.Memory.clear_cache()
      assert turns_of.(x, 20) == {first, twenty}
    end
  end

  defn weighed(x, w, shift, n) do
    scale = Nx.sum(w) / 1000

    {x, rows, _, _, _, _, _} =
      while {x, rows = Nx.broadcast(shift, {64, 64}), w, scale, shift, i = 0, n}, i < n do
        rows = Nx.put_slice(rows, [i, 0], Nx.reshape(x, {1, 64}))
        x = Nx.sin(Nx.dot(x, w)) * scale + rows[[0, 0..63]] + shift
        {x, rows, w, scale, shift, i + 1, n}
      end

    {x, rows}
  end

  # A large array is written over in its place, and read.
  defn cached(x, n) do
    while {rows = Nx.broadcast(Nx.tensor(0.0), {64, 512}), x, i = 0, n}, i < n do
      rows = Nx.put_slice(rows, [i, 0], Nx.reshape(x, {1, 512}))
      {rows, Nx.sin(x) + rows[[0, 0..511]], i + 1, n}
    end
  end

  test "runs that follow on one another have nothing of each other" do
    square = fn seed -> Nx.iota({64, 64}, type: :f32) |> Nx.multiply(seed) |> Nx.sin() end

    runs =
      for {start, weights, shift, n} <- [
            {1, 1, 0.5, 9},
            {2, 1, 0.5, 9},
            {2, 1, 0.25, 4},
            {1, 2, 0.5, 9},
            {1, 2, 0.5, 0},
            {1, 1, 0.5, 30}
          ] do
        [Nx.multiply(row()[0..63], start), square.(weights), Nx.tensor(shift), turns(n)]
      end

    expected = for run <- runs, do: evaluated(&weighed/4, run)

    # All results are held while later runs compute, from the same tensors and from copies of them.
    held = for run <- runs ++ runs, do: Enum.map(run, &Nx.backend_copy(&1, Emily.Backend))

    run = built(&weighed/4, hd(runs))
    results = for arguments <- held ++ held, do: apply(run, arguments)

    for {result, expected} <- Enum.zip(results, Stream.cycle(expected)),
        i <- 0..1,
        do: assert_equal(elem(result, i), elem(expected, i), tolerance: 1.0e-4)
  end

  # What a run gives begins the next one, as the state of training does.
  test "a loop goes on from what it has given" do
    go = fn run -> Enum.reduce(1..6, row(), fn _, x -> elem(run.(x, turns(5)), 1) end) end
    expected = go.(&evaluated(fn x, n -> cached(x, n) end, [&1, &2]))
    assert_equal(go.(built(&cached/2, [row(), turns(0)])), expected, tolerance: 1.0e-4)
  end

  # MLX keeps a failure of a stream for whoever waits for the stream first.
  test "a failure of another's is another's" do
    x = Nx.backend_copy(row(), Emily.Backend)
    run = built(&counted/2, [row(), turns(0)])
    loops = Task.async(fn -> for _ <- 1..1500, do: run.(x, turns(6)) end)

    for _ <- 1..1500 do
      assert_raise Emily.Error, ~r/Inverse/, fn ->
        Emily.Native.run([{:inv, {:full, [2, 2], 1, :f32}}])
      end
    end

    expected = evaluated(&counted/2, [row(), turns(6)])

    for {result, _, _} <- Enum.take_every(Task.await(loops, :infinity), 100),
        do: assert_equal(result, elem(expected, 0), tolerance: 1.0e-4)
  end
end
