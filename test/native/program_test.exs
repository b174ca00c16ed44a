defmodule Emily.Native.ProgramTest do
  use ExUnit.Case, async: false

  alias Emily.Native
  alias Emily.Native.Program

  doctest Emily.Native.Program

  defp scalar(number, type \\ :s32), do: hd(Native.run([{:full, [], number, type}]))
  defp v(id), do: {:var, id}
  defp int(number), do: {:full, [], number, :s32}
  defp items(arrays), do: Enum.map(arrays, &Native.item/1)
  defp run(function, arrays), do: function |> Program.compile() |> Program.run(arrays)

  # The numbers 0 and 1 by as many iterations as `limit` says.
  defp loop(limit, body) do
    {[0, 1], [],
     [{:while, [v(0), v(1)], {[2, 3], [], [{:less, v(2), limit}]}, {[4, 5], [], body}}]}
  end

  test "values are named and shared, arrays are captured" do
    ten = scalar(10)
    function = {[0, 1], [{2, {:multiply, v(0), v(1)}}], [{:add, v(2), ten}, {:add, v(2), v(2)}]}
    assert run(function, [scalar(3), scalar(4)]) |> items() == [22, 24]
  end

  test "a captured array outlives its last reference in Elixir" do
    program = Program.compile({[0], [], [{:add, v(0), scalar(7)}]})
    :erlang.garbage_collect()
    assert Program.run(program, [scalar(1)]) |> items() == [8]
  end

  test "parameters may be results" do
    assert run({[0, 1], [], [v(1), v(0)]}, [scalar(1), scalar(2)]) |> items() == [2, 1]
  end

  test "long programs" do
    steps = for i <- 1..3000, do: {i, {:add, v(i - 1), v(0)}}
    program = Program.compile({[0], steps, [v(3000)]})
    assert program.operations == 3000
    assert Program.run(program, [scalar(2)]) |> items() == [6002]
  end

  describe "cond" do
    @choose {[0, 1], [],
             [
               {:elem, 0,
                {:cond, {:astype, {:var, 0}, :bool}, {[], [], [{:add, {:var, 1}, {:var, 1}}]},
                 {[], [{2, {:multiply, {:var, 1}, {:var, 1}}}], [{:var, 2}]}}}
             ]}

    test "runs the branch that is chosen" do
      program = Program.compile(@choose)
      assert program.waits
      assert Program.run(program, [scalar(1), scalar(5)]) |> items() == [10]
      assert Program.run(program, [scalar(0), scalar(5)]) |> items() == [25]
    end

    test "the other branch does not run" do
      # A singular matrix cannot be inverted.
      fails = {[], [], [{:sum, {:inv, {:full, [2, 2], 0.0, :f32}}, [0, 1], false}]}
      works = {[], [], [{:full, [], 1.0, :f32}]}
      function = {[0], [], [{:cond, {:astype, v(0), :bool}, works, fails}]}
      assert run(function, [scalar(1)]) |> items() == [1.0]
      assert_raise Emily.Error, fn -> run(function, [scalar(0)]) end
    end
  end

  describe "branches in branches" do
    # `depth` conditions, each in a branch of the one around it.
    defp nested(depth) do
      one = {:full, [], 1, :s32}

      inner =
        Enum.reduce(1..depth, {[], [], [v(0)]}, fn n, branch ->
          {[], [{n, {:cond, {:greater, v(0), int(n)}, branch, {[], [], [v(0)]}}}],
           [{:add, {:elem, 0, v(n)}, one}]}
        end)

      {_, steps, results} = inner
      {[0], steps, results}
    end

    # On the small stacks of schedulers, where they are decoded, run and dropped, this ended the VM.
    test "run as deep as a thousand" do
      for depth <- [40, 999] do
        assert run(nested(depth), [scalar(5000)]) |> items() == [5000 + depth]
        assert run(nested(depth), [scalar(0)]) |> items() == [1]
        :erlang.garbage_collect()
      end
    end

    test "are refused beyond" do
      {[], [], eager} =
        Enum.reduce(1..900, {[], [], [int(1)]}, fn _, branch ->
          {[], [], [{:elem, 0, {:cond, {:full, [], 1, :bool}, branch, branch}}]}
        end)

      assert_raise ArgumentError, ~r/are for compile/, fn -> Native.run(eager) end

      for depth <- [1001, 5000],
          do:
            assert_raise(ArgumentError, ~r/nest more than 1000/, fn ->
              run(nested(depth), [scalar(1)])
            end)
    end
  end

  describe "while" do
    test "counts, with the state of several iterations ahead" do
      body = [{:add, v(4), int(1)}, {:add, v(5), v(4)}]

      for limit <- [0, 1, 2, 3, 10, 31, 32, 33, 1000] do
        sum = div(limit * (limit - 1), 2)
        assert run(loop(int(limit), body), [scalar(0), scalar(0)]) |> items() == [limit, sum]
      end
    end

    test "uses values around it, and nests" do
      inner =
        {:while, [v(4), v(10)], {[11, 12], [], [{:greater, v(12), int(0)}]},
         {[13, 14], [], [{:add, v(13), v(0)}, {:subtract, v(14), int(1)}]}}

      outer =
        {[0], [{10, {:add, int(2), int(1)}}],
         [
           {:while, [int(0), int(0)], {[2, 3], [], [{:less, v(3), int(5)}]},
            {[4, 5], [{6, inner}], [{:elem, 0, v(6)}, {:add, v(5), int(1)}]}}
         ]}

      # Five times three times the parameter.
      assert run(outer, [scalar(7)]) |> items() == [105, 5]
    end

    test "a long loop over large states stays within bounded memory" do
      size = 1_000_000
      [large] = Native.run([{:full, [size], 0.0, :f32}])
      Native.eval(large)

      program =
        Program.compile(
          {[0, 1], [],
           [
             {:while, [v(0), v(1)], {[2, 3], [], [{:less, v(2), int(200)}]},
              {[4, 5], [], [{:add, v(4), int(1)}, {:add, v(5), {:full, [], 1.0, :f32}}]}}
           ]}
        )

      Native.reset_peak_memory()
      before = Native.memory().active
      [_, last] = Program.run(program, [scalar(0), large])
      assert Native.run([{:max, last, [0], false}]) |> items() == [200.0]
      assert Native.memory().peak - before < 8 * 4 * size
    end

    test "a loop whose caller dies ends" do
      forever =
        {[0], [], [{:while, [v(0)], {[1], [], [{:full, [], 1, :bool}]}, {[2], [], [v(2)]}}]}

      program = Program.compile(forever)
      start = scalar(0)
      {pid, monitor} = spawn_monitor(fn -> Program.run(program, [start]) end)
      Process.sleep(50)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, _, _, :killed}
      # The threads that wait are counted: as many loops again would find no thread left.
      for _ <- 1..300 do
        {pid, monitor} = spawn_monitor(fn -> Program.run(program, [start]) end)
        Process.exit(pid, :kill)
        assert_receive {:DOWN, ^monitor, _, _, :killed}
      end

      assert run(loop(int(3), [{:add, v(4), int(1)}, v(5)]), [scalar(0), scalar(9)]) |> items() ==
               [3, 9]
    end

    test "many at once" do
      program = Program.compile(loop(int(50), [{:add, v(4), int(1)}, {:add, v(5), int(2)}]))

      1..400
      |> Task.async_stream(fn i -> Program.run(program, [scalar(0), scalar(i)]) |> items() end,
        max_concurrency: 400,
        timeout: :infinity
      )
      |> Enum.with_index(1)
      |> Enum.each(fn {{:ok, result}, i} -> assert result == [50, i + 100] end)
    end

    test "what fails in a loop is its caller's error" do
      body = [{:add, v(4), int(1)}, {:reshape, {:full, [3], 0, :s32}, [2]}]
      assert_raise Emily.Error, fn -> run(loop(int(3), body), [scalar(0), scalar(0)]) end
    end

    test "linear algebra in a loop is computed, and its failure raised" do
      inverse = {:inv, {:subtract, {:eye, 2, 2, 0, :f32}, {:astype, v(4), :f32}}}
      body = [{:add, v(4), int(1)}, {:add, v(5), {:sum, inverse, [0, 1], false}}]
      start = [scalar(2), scalar(0.0, :f32)]
      [_, sum] = run(loop(int(3), body), start)

      # The inverse of [[-1, -2], [-2, -1]] is [[1, -2], [-2, 1]] / 3 * ... summed to -2/3.
      assert_in_delta Native.item(sum), -2 / 3, 1.0e-6

      singular = [{:add, v(4), int(1)}, {:sum, {:inv, {:full, [2, 2], 0.0, :f32}}, [0, 1], false}]
      assert_raise Emily.Error, fn -> run(loop(int(3), singular), start) end
    end
  end

  test "what is no function is refused" do
    for bad <- [
          nil,
          {},
          {[], []},
          {:a, [], []},
          {[0], :a, []},
          {[0], [], :a},
          {[0], [v(0)], []},
          {[:a], [], []},
          {[0], [{1, :a}], []},
          {[0], [], [v(1)]},
          {[0], [{1, {:nothing, v(0)}}], []},
          {[], [], [{:cond, int(1), {[], [], []}, {[], [], [int(1)]}}]},
          {[], [], [{:cond, int(1), {[1], [], []}, {[1], [], []}}]},
          {[], [], [{:call, :a, [], 0}]},
          {[], [], [{:call, 0, [], -1}]},
          {[], [], [{:call, 0, int(1), 1}]},
          {[], [], [{:while, [int(1)], {[1], [], []}, {[1], [], [v(1)]}}]},
          {[], [], [{:while, [int(1)], {[1], [], [v(1)]}, {[1], [], []}}]},
          {[], [], [{:while, [int(1), int(1)], {[1], [], [v(1)]}, {[1], [], [v(1)]}}]}
        ] do
      assert_raise ArgumentError, fn -> Program.compile(bad) end
    end
  end

  test "a condition that is no boolean is refused" do
    assert_raise ArgumentError, ~r/one boolean/, fn ->
      run({[], [], [{:cond, int(1), {[], [], [int(1)]}, {[], [], [int(1)]}}]}, [])
    end
  end

  test "wrong inputs are refused" do
    program = Program.compile({[0], [], [{:exp, v(0)}]})

    for bad <- [[], [scalar(1), scalar(2)], :a, [:a], [1 | 2]] do
      assert_raise ArgumentError, fn -> Program.run(program, bad) end
    end

    waiting = Program.compile(@choose)

    for bad <- [[], :a, [:a]],
        do: assert_raise(ArgumentError, fn -> Program.run(waiting, bad) end)
  end

  test "conditions are for programs only" do
    assert_raise ArgumentError, fn ->
      Native.run([{:cond, {:full, [], 1, :bool}, {[], [], [int(1)]}, {[], [], [int(2)]}}])
    end
  end

  describe "fused" do
    test "programs give what the others give" do
      function =
        {[0, 1], [{2, {:multiply, v(0), v(1)}}],
         [{:tanh, {:add, v(2), {:full, [], 1.5, :f32}}}, {:exp, {:negative, v(2)}}]}

      [x, y] = Native.run([{:arange, -2.0, 2.0, 0.01, :f32}, {:full, [400], 0.7, :f32}])

      plain =
        function |> Program.compile() |> Program.run([x, y]) |> Enum.map(&Native.to_binary/1)

      fused = Program.compile(function, fuse: true)

      for _ <- 1..3,
          do: assert(fused |> Program.run([x, y]) |> Enum.map(&Native.to_binary/1) == plain)
    end

    test "programs run on several streams, and with arrays of their own" do
      ten = scalar(10.0, :f32)
      program = Program.compile({[0], [], [{:exp, {:negative, {:add, v(0), ten}}}]}, fuse: true)

      for device <- [:cpu, Native.stream_new(:cpu)] do
        [y] = Program.run(program, [scalar(-10.0, :f32)], device)
        assert Native.item(y) == 1.0
      end
    end

    test "programs have conditions, loops, calls and linear algebra" do
      step = {[3], [], [{:multiply, {:add, v(3), v(0)}, {:full, [], 2.0, :f32}}]}
      going = {[4], [], [{:less, {:multiply, v(4), v(4)}, {:full, [], 1000.0, :f32}}]}
      loop = {:elem, 0, {:while, [v(0)], going, step}}
      steps = [{1, {:negative, {:add, v(0), v(0)}}}, {2, {:call, 0, [v(1)], 0}}]

      results = [
        loop,
        {:multiply, {:abs, v(1)}, v(0)},
        {:det, {:reshape, {:exp, {:negative, v(0)}}, [1, 1]}}
      ]

      program = Program.compile({[0], steps, results}, fuse: true)
      process = self()
      hook = fn 0, [x] -> send(process, {:called, Native.item(x)}) && [] end
      [looped, product, det] = Program.run(program, [scalar(2.0, :f32)], :cpu, hook)
      assert_received {:called, -4.0}
      # 2, 8, 20, 44
      assert Native.item(looped) == 44.0
      assert Native.item(product) == 8.0
      assert_in_delta Native.item(det), :math.exp(-2), 1.0e-7
    end
  end

  describe "calls" do
    # Calls the host with the counter in each of five iterations.
    @counting {[0], [],
               [
                 {:while, [{:var, 0}], {[1], [], [{:less, {:var, 1}, {:full, [], 5, :s32}}]},
                  {[2], [{3, {:call, 0, [{:var, 2}], 0}}],
                   [{:add, {:var, 2}, {:full, [], 1, :s32}}]}}
               ]}

    test "are made in order, once an iteration, before the program returns" do
      parent = self()
      program = Program.compile(@counting)
      call = fn 0, [x] -> send(parent, {:at, Native.item(x)}) && [] end
      assert items(Program.run(program, [scalar(0)], :cpu, call)) == [5]

      for i <- 0..4, do: assert_received({:at, ^i})
      refute_received {:at, _}
    end

    test "that raise end the program, and leave no message behind" do
      program = Program.compile(@counting)

      for kind <- [:error, :exit, :throw] do
        call = fn 0, [x] -> if Native.item(x) == 2, do: :erlang.raise(kind, :no, []), else: [] end

        assert catch_raised(fn -> Program.run(program, [scalar(0)], :cpu, call) end) ==
                 {kind, :no}

        refute_received _
      end
    end

    defp catch_raised(fun) do
      fun.()
    catch
      kind, reason -> {kind, reason}
    end

    test "give arrays, as many as the program says" do
      swap =
        {[0, 1], [{2, {:call, 3, [v(0), v(1)], 2}}],
         [{:subtract, {:elem, 0, v(2)}, {:elem, 1, v(2)}}]}

      program = Program.compile(swap)
      inputs = [scalar(3), scalar(4)]
      swapped = Program.run(program, inputs, :cpu, fn 3, [x, y] -> [y, x] end)
      assert items(swapped) == [1]

      for bad <- [fn _, _ -> [] end, fn _, [x, _] -> [x] end, fn _, _ -> [:a, :b] end] do
        assert_raise ArgumentError, fn -> Program.run(program, inputs, :cpu, bad) end
      end

      assert_raise ArgumentError, ~r/no function for calls/, fn ->
        Program.run(program, inputs)
      end
    end

    test "end with the process that they are made to" do
      program = Program.compile(@counting)
      parent = self()

      pid =
        spawn(fn ->
          Program.run(program, [scalar(0)], :cpu, fn 0, _ ->
            send(parent, :called) && exit(:kill)
          end)
        end)

      ref = Process.monitor(pid)
      assert_receive :called
      assert_receive {:DOWN, ^ref, _, _, _}
      assert items(Program.run(program, [scalar(0)], :cpu, fn 0, _ -> [] end)) == [5]
    end
  end
end
