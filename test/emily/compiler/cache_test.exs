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
    fun = fn x -> observe(Nx.add(x, 1), :seen) end

    assert since(fn ->
             compiled(fun, [1])
             compiled(fun, [1], hooks: %{seen: fn _ -> :a end})
             compiled(fun, [1], hooks: %{seen: fn _ -> :b end})
             compiled(fun, [1], garbage_collect: true, partition: 0, max_concurrency: 3)
             compiled(fun, [1], native_fallback: :eval)
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

  describe "the bounds of the configuration" do
    setup do
      on_exit(fn -> Application.delete_env(:emily, :compiler_cache) end)
    end

    defp bounded(bounds), do: Application.put_env(:emily, :compiler_cache, bounds)

    # A program whose key holds a megabyte, as does its own copy of that.
    defp heavy(n) do
      big = Nx.broadcast(Nx.tensor(n, type: :u8), {1_000_000})
      compiled(fn x -> Nx.sum(Nx.add(x, big)) end, [1])
    end

    test "bytes: keys, and the constants that were copied for programs" do
      for n <- 1..100, do: heavy(n)
      assert Cache.info().bytes in 60_000_000..67_108_864

      bounded(bytes: 10_000_000)
      heavy(101)
      assert Cache.info().bytes in 8_000_000..10_000_000
      # The last ones are there.
      assert {_, 1, 0} = since(fn -> heavy(101) end)
    end

    test "bytes: arrays of Emily.Backend count, as do binaries within functions within functions" do
      big = on_emily(Nx.broadcast(Nx.tensor(1, type: :u8), {3_000_000}))
      text = String.duplicate("a", 2_000_000)
      inner = fn x -> Nx.add(x, byte_size(text)) end
      compiled(fn x -> Nx.add(x, Nx.size(big)) end, [1])
      assert Cache.info().bytes in 3_000_000..3_100_000
      compiled(fn x -> inner.(x) end, [1])
      assert Cache.info().bytes in 5_000_000..5_100_000
    end

    test "bytes: the program used last stays, whatever its size" do
      bounded(bytes: 1000)
      assert {1, 3, 1} = since(fn -> for _ <- 1..4, do: heavy(1) end)
      heavy(2)
      assert Cache.info().programs == 1
    end

    test "what a program held is freed" do
      bounded(bytes: 1_000_000)
      before = memory()
      for n <- 1..20, do: heavy(n)
      assert memory().active < before.active + 3_000_000
    end

    test "programs" do
      bounded(programs: 3)
      for n <- 1..10, do: compiled(fn x -> Nx.add(x, n) end, [1])
      assert %{programs: 3, capacity: 3} = Cache.info()
    end

    test "age: a program that was not used for that long is forgotten unasked" do
      bounded(age: 1)
      compiled(&Nx.add/2, [1, 2])
      Process.sleep(2)
      send(Cache, :forget)
      :sys.get_state(Cache)
      assert Cache.info().programs == 0

      bounded(age: :infinity)
      compiled(&Nx.add/2, [1, 2])
      send(Cache, :forget)
      :sys.get_state(Cache)
      assert Cache.info().programs == 1
    end

    test "others are refused" do
      for bounds <- [[bytes: 0], [programs: nil], [age: 1.5], [size: 3]] do
        bounded(bounds)
        send(Cache, :forget)
        assert_raise ArgumentError, fn -> compiled(&Nx.subtract/2, [1, 2]) end
      end

      bounded([])
      assert_equal(compiled(&Nx.subtract/2, [1, 2]), Nx.tensor(-1))
    end
  end

  describe "a module that is loaded anew" do
    setup do
      Code.put_compiler_option(:ignore_module_conflict, true)
      on_exit(fn -> Code.put_compiler_option(:ignore_module_conflict, false) end)
    end

    @inner Emily.Compiler.CacheTest.Inner
    @outer Emily.Compiler.CacheTest.Outer

    defp define(module, body) do
      Code.compile_string(
        "defmodule #{inspect(module)} do\nimport Nx.Defn\ndefn f(x), do: #{body}\nend"
      )
    end

    # Captured, captured from a module that calls it, closed over, and in a function of IEx.
    defp answers do
      inner = Function.capture(@inner, :f, 1)
      {evaluated, _} = Code.eval_string("fn x -> #{inspect(@inner)}.f(x) end")
      caller = Function.capture(@outer, :f, 1)

      for fun <- [inner, caller, fn x -> apply(@inner, :f, [x]) end, &inner.(&1), evaluated] do
        compiled(fun, [1]) |> Nx.to_number()
      end
    end

    test "changes what was traced through it" do
      define(@inner, "x + 1")
      define(@outer, "#{inspect(@inner)}.f(x) * 10")
      assert answers() == [2, 20, 2, 2, 2]
      define(@inner, "x + 5")
      assert answers() == [6, 60, 6, 6, 6]
      define(@outer, "#{inspect(@inner)}.f(x) * 100")
      assert answers() == [6, 600, 6, 6, 6]
    end

    test "with the same code, or for the first time, changes nothing" do
      define(@inner, "x + 2")
      compiled(&Nx.add/2, [1, 2])

      assert {1, 2, 0} =
               since(fn ->
                 define(@inner, "x + 2")
                 compiled(&Nx.add/2, [1, 2])
                 define(Module.concat(@inner, "New#{System.unique_integer([:positive])}"), "x")
                 compiled(&Nx.add/2, [1, 2])
               end)
    end

    test "is seen by all processes" do
      define(@inner, "x + 3")
      answers = fn -> Function.capture(@inner, :f, 1) |> compiled([1]) |> Nx.to_number() end
      assert for(_ <- 1..8, do: Task.async(answers)) |> Task.await_many() |> Enum.uniq() == [4]
      define(@inner, "x + 4")
      assert for(_ <- 1..8, do: Task.async(answers)) |> Task.await_many() |> Enum.uniq() == [5]
    end
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
