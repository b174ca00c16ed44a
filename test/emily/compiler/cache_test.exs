defmodule Emily.Compiler.CacheTest do
  # The cache and memory are the whole VM's, so nothing else may run meanwhile.
  use Emily.CompilerCase, async: false

  alias Emily.Compiler.Cache

  doctest Emily.Compiler.Cache

  setup do
    Cache.clear()
    :ok
  end

  # Programs, hits and misses since.
  defp since(fun) do
    before = Cache.info()
    fun.()
    now = Cache.info()
    {now.programs, now.hits - before.hits, now.misses - before.misses}
  end

  defp times(n, fun), do: for(_ <- 1..n, do: fun.())

  test "the same function on the same shapes and types is compiled once" do
    fun = &Nx.add/2
    assert since(fn -> times(10, fn -> compiled(fun, [1, 2]) end) end) == {1, 9, 1}
    assert since(fn -> times(10, fn -> compiled(&Nx.add/2, [3, 4]) end) end) == {1, 10, 0}

    for {args, programs} <- [
          {[Nx.tensor([1]), 2], 2},
          {[Nx.tensor([1.0]), 2], 3},
          {[Nx.tensor([1], names: [:a]), 2], 4},
          {[Nx.vectorize(Nx.tensor([1]), :a), 2], 5},
          {[Nx.tensor([7]), 8], 5}
        ] do
      compiled(fun, args)
      assert Cache.info().programs == programs
    end
  end

  test "closures are the same where they close over the same" do
    power = fn n -> fn x -> Nx.pow(x, n) end end
    assert since(fn -> for n <- [2, 3, 2, 3], do: compiled(power.(n), [2]) end) == {2, 2, 2}
    assert_equal(compiled(power.(2), [3]), Nx.tensor(9))
    assert_equal(compiled(power.(3), [3]), Nx.tensor(27))
  end

  test "options that a program depends on are part of its key, others are not" do
    fun = fn x -> Nx.Defn.Kernel.hook(Nx.add(x, 1), :seen) end

    assert since(fn ->
             compiled(fun, [1])
             compiled(fun, [1], hooks: %{seen: fn _ -> :a end})
             compiled(fun, [1], hooks: %{seen: fn _ -> :b end})
             compiled(fun, [1], garbage_collect: true, partition: 0, max_concurrency: 3)
             compiled(fun, [1], native_fallback: :evaluate)
           end) == {3, 2, 3}
  end

  test "cache: false neither looks nor keeps" do
    assert since(fn -> times(3, fn -> compiled(&Nx.add/2, [1, 2], cache: false) end) end) ==
             {0, 0, 0}

    compiled(&Nx.add/2, [1, 2])

    assert since(fn -> compiled(&Nx.add/2, [1, 2], cache: false) end) == {1, 0, 0}
  end

  test "there are never more programs than the capacity, and the last used stay" do
    capacity = Cache.info().capacity
    first = fn x -> Nx.add(x, -1) end
    compiled(first, [1])

    for n <- 1..(capacity + 50) do
      compiled(fn x -> Nx.add(x, n) end, [1])
      # Used all along, so not forgotten.
      assert since(fn -> compiled(first, [1]) end) |> elem(1) == 1
      assert Cache.info().programs <= capacity
    end

    assert Cache.info().programs == capacity
    assert {^capacity, 0, 1} = since(fn -> compiled(fn x -> Nx.add(x, 1) end, [1]) end)
  end

  test "many processes at once keep to the capacity" do
    capacity = Cache.info().capacity

    for p <- 1..4 do
      Task.async(fn ->
        for n <- 1..100, do: compiled(fn x -> Nx.add(x, 1000 * p + n) end, [p])
      end)
    end
    |> Task.await_many(:infinity)

    assert Cache.info().programs <= capacity
  end

  test "a compiled closure keeps its program when the cache forgets it" do
    test = self()
    trace = fn x -> send(test, :traced) && Nx.multiply(x, 3) end
    run = Nx.Defn.compile(trace, [Nx.template({2}, :s32)], compiler: Emily.Compiler)
    assert mailbox() == [:traced]
    Cache.clear()

    assert since(fn -> times(5, fn -> run.(Nx.tensor([1, 2])) end) end) == {0, 0, 0}
    assert_equal(run.(Nx.tensor([1, 2])), Nx.tensor([3, 6]))
    assert mailbox() == []
  end

  test "a function that raises when it is compiled leaves nothing" do
    fun = fn _ -> raise "no" end
    for _ <- 1..2, do: assert_raise(RuntimeError, "no", fn -> compiled(fun, [1]) end)
    assert Cache.info().programs == 0
  end

  import Nx.Defn

  defn step(x, y) do
    {x, _} =
      while {x, i = 0}, i < 2 do
        {x + y_like(x), i + 1}
      end

    if Nx.sum(x) > 0, do: x * y, else: x
  end

  defn y_like(x), do: Nx.iota(Nx.shape(x)) + Nx.tensor([1.0, 2.0, 3.0, 4.0])

  defn straight(x, y), do: Nx.sum(Nx.exp(x) * y)

  for {name, calls} <- [straight: 10_000, step: 2_000] do
    test "memory does not grow with #{calls} calls of a function like #{name}" do
      fun = Function.capture(__MODULE__, unquote(name), 2)
      x = on_emily(Nx.tensor([1.0, 2.0, 3.0, 4.0]))
      run = fn -> compiled(fun, [x, x]) end
      times(200, run)
      before = memory()
      for _ <- 1..unquote(calls), do: run.()
      after_calls = memory()

      for {figure, room} <- [process: 100_000, active: 20_000, ets: 0, programs: 0, atoms: 50] do
        assert after_calls[figure] <= before[figure] + room,
               "#{figure} went from #{before[figure]} to #{after_calls[figure]}"
      end
    end
  end

  defp memory do
    :erlang.garbage_collect()
    {:memory, process} = Process.info(self(), :memory)

    %{
      process: process,
      active: Emily.Native.memory().active,
      ets: :ets.info(Cache, :memory),
      programs: Cache.info().programs,
      atoms: :erlang.system_info(:atom_count)
    }
  end
end
