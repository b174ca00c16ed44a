Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.EvaluationTest do
  # What computes: from one process, from many, and what becomes of failures and of the dead.
  use NativeCase, async: true

  # LAPACK finds out while it computes.
  defp failing, do: {:inv, {:full, [3, 3], 0, :f32}}

  describe "eval and async_eval" do
    test "take one array, a list and none" do
      [x, y] = Native.run([{:exp, scalar(0.0)}, {:full, [], 3, :u8}])
      assert Native.eval(x) == :ok
      assert Native.eval([x, y]) == :ok
      assert Native.eval([]) == :ok
      assert Native.async_eval([]) == :ok
      assert Native.async_eval(x) == :ok
      assert {Native.item(x), Native.item(y)} == {1.0, 3}
    end

    test "may be repeated, and mixed with reading" do
      x = run({:multiply, vector([1.0, 2.0]), scalar(3.0)})
      for _ <- 1..3, do: assert(Native.async_eval([x, x]) == :ok)
      assert numbers(x) == [3.0, 6.0]
      for _ <- 1..3, do: assert(Native.eval([x, x]) == :ok)
      assert numbers(x) == [3.0, 6.0]
    end

    test "of arrays on several streams" do
      streams = for _ <- 1..3, do: Native.stream_new(Native.default_device())

      arrays =
        for {stream, i} <- Enum.with_index(streams),
            do: run({:add, scalar(i / 1), scalar(1.0)}, stream)

      assert Native.eval(arrays) == :ok
      assert Enum.map(arrays, &Native.item/1) == [1.0, 2.0, 3.0]
    end

    test "leave no message behind" do
      x = run({:exp, vector([0.0, 0.0])})
      Native.async_eval(x)
      Native.eval(x)
      Native.to_binary(x)
      assert catch_error(run(failing()))
      refute_received _
    end

    test "take no message that is not theirs" do
      send(self(), {make_ref(), :ok})
      send(self(), :other)
      assert numbers({:exp, vector([0.0])}) == [1.0]
      assert_received {_, :ok}
      assert_received :other
    end
  end

  describe "a failure" do
    test "is raised by run, whatever is built on it" do
      for expression <- [
            failing(),
            {:add, failing(), scalar(1.0)},
            {:let, 1, failing(), {:add, {:var, 1}, {:var, 1}}},
            {:tuple, [{:eye, 2, 2, 0, :f32}, failing()]},
            {:where, {:full, [], 0, :bool}, failing(), {:eye, 3, 3, 0, :f32}},
            Enum.reduce(1..50, failing(), fn _, x ->
              {:let, 1, x, {:maximum, {:var, 1}, {:var, 1}}}
            end)
          ],
          _ <- 1..3 do
        assert_raise Emily.Error, ~r/Inverse/, fn -> run(expression) end
      end

      assert_raise Emily.Error, fn -> Native.run([{:eye, 2, 2, 0, :f32}, failing()]) end
    end

    @tag :f64
    test "that MLX finds only when it schedules is raised too, each time, and what came before it stays" do
      before = run({:add, scalar(1.0), scalar(1.0)})

      image = {:full, [2, 2, 6], 1, :f64}
      # Types that differ are MLX's, which has no dilated kernels of f64.
      refused =
        run({:conv, image, {:full, [6, 1, 6], 1, :f32}, [1], [0], [0], [2], [1], 1, false, false})

      for _ <- 1..3, read <- [&Native.eval/1, &Native.to_binary/1] do
        assert_raise Emily.Error, ~r/unsupported data type/, fn -> read.(refused) end
      end

      assert Native.item(before) == 2.0
    end

    test "of any decomposition that can fail" do
      for expression <- [
            {:solve, {:full, [2, 2], 0, :f32}, vector([1.0, 1.0])},
            {:inv, {:full, [2, 2], 1, :f64}},
            {:eigh, {:full, [2, 2], :nan, :f32}, true},
            {:svd, {:full, [2, 2], :nan, :f32}, true}
          ] do
        # LAPACKs differ in what they make of NaN: an error or NaN, and nothing else.
        try do
          for array <- Native.run([expression], :cpu), do: assert(numbers(array) != [])
        rescue
          error in Emily.Error -> assert error.message != ""
        end
      end

      assert numbers({:inv, {:eye, 2, 2, 0, :f32}}) == [1.0, 0.0, 0.0, 1.0]
    end

    test "is no part of what comes after it on its stream" do
      stream = Native.stream_new(:cpu)

      for i <- 1..500 do
        assert_raise Emily.Error, fn -> run({:add, failing(), failing()}, stream) end
        assert Native.item(run({:add, scalar(i / 1), scalar(1.0)}, stream)) == i + 1.0
        assert numbers(run({:inv, {:eye, 2, 2, 0, :f32}}, stream)) == [1.0, 0.0, 0.0, 1.0]
      end
    end

    test "in an argument of a kernel is refused, not left for later" do
      assert_raise ArgumentError, ~r/linear algebra/, fn ->
        Native.rms_norm(failing(), nil, 0.1)
      end
    end

    test "is its process's own, while others compute on the same stream" do
      results =
        for i <- 1..60 do
          Task.async(fn ->
            for j <- 1..10 do
              if rem(i, 3) == 0 do
                assert_raise Emily.Error, fn -> run(failing()) end
              else
                assert numbers({:add, vector([i / 1, j / 1]), scalar(1.0)}) == [i + 1.0, j + 1.0]
              end
            end

            :done
          end)
        end
        |> Task.await_many(:infinity)

      assert Enum.uniq(results) == [:done]
      assert Native.item(run({:exp, scalar(0.0)})) == 1.0
    end
  end

  describe "100 processes at once" do
    test "get their own answers" do
      shared = run({:exp, vector([0.0, 0.0, 0.0])})

      results =
        for i <- 1..100 do
          Task.async(fn ->
            for j <- 1..20 do
              x = run({:multiply, {:add, shared, scalar(i / 1)}, scalar(j / 1)})
              Enum.all?(numbers(x), &(&1 == (i + 1.0) * j))
            end
          end)
        end
        |> Task.await_many(:infinity)

      assert results |> List.flatten() |> Enum.all?()
    end

    test "with the fused kernels and linear algebra among them" do
      results =
        for i <- 1..100 do
          Task.async(fn ->
            x = array([3.0, -3.0, 3.0, -3.0], [1, 4], :f32)
            scaled = run({:multiply, Native.rms_norm(x, nil, 0.0), scalar(i / 1)})
            inverse = run({:inv, {:multiply, {:eye, 2, 2, 0, :f32}, scalar(2.0)}})

            expected = [i / 1, -i / 1, i / 1, -i / 1] ++ [0.5, 0.0, 0.0, 0.5]
            # A GPU's norm need not be exact.
            for {got, expected} <- Enum.zip(numbers(scaled) ++ numbers(inverse), expected),
                do: abs(got - expected) <= 1.0e-5 * abs(expected)
          end)
        end
        |> Task.await_many(:infinity)

      assert results |> List.flatten() |> Enum.all?()
    end

    test "drop the results of decompositions uncomputed" do
      for _ <- 1..100 do
        Task.async(fn ->
          for _ <- 1..20 do
            [q, _r] = Native.run([{:qr, {:eye, 3, 3, 0, :f32}}])
            spawn(fn -> Native.shape(q) end)
          end
        end)
      end
      |> Task.await_many(:infinity)

      assert Native.item(run({:exp, scalar(0.0)})) == 1.0
    end
  end

  describe "a process that is killed" do
    test "while it waits leaves everything working" do
      # Big enough that many still wait when they are killed.
      x = run({:full, [300, 300], 0.001, :f32})
      Native.eval(x)

      pids =
        for _ <- 1..50 do
          spawn(fn ->
            Native.to_binary(Enum.reduce(1..20, x, fn _, y -> run({:matmul, y, x}) end))
          end)
        end

      monitors = Enum.map(pids, &Process.monitor/1)
      Enum.each(pids, &Process.exit(&1, :kill))
      for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, _, _, _})

      assert numbers({:add, vector([1.0]), scalar(1.0)}) == [2.0]
    end

    test "between building and reading loses its own arrays only" do
      test = self()

      pid =
        spawn(fn ->
          send(test, {:array, run({:exp, vector([0.0])})})
          Process.sleep(:infinity)
        end)

      assert_receive {:array, array}
      Process.exit(pid, :kill)
      :erlang.garbage_collect()
      assert numbers(array) == [1.0]
    end

    test "by a link while it waits dies of it, not of the binding" do
      x = run({:full, [200, 200], 0.001, :f32})

      {pid, monitor} =
        spawn_monitor(fn ->
          spawn_link(fn -> exit(:linked) end)
          Enum.each(Stream.cycle([x]), fn x -> Native.to_binary(run({:matmul, x, x})) end)
        end)

      assert_receive {:DOWN, ^monitor, :process, ^pid, :linked}
      assert Native.item(run({:exp, scalar(0.0)})) == 1.0
    end

    test "is told of exits as messages where it traps them, and goes on" do
      task =
        Task.async(fn ->
          Process.flag(:trap_exit, true)
          child = spawn_link(fn -> exit(:child) end)
          values = for i <- 1..50, do: Native.item(run({:add, scalar(i / 1), scalar(1.0)}))
          assert_receive {:EXIT, ^child, :child}
          values
        end)

      assert Task.await(task, :infinity) == for(i <- 1..50, do: i + 1.0)
    end
  end

  describe "long graphs" do
    test "give the right number" do
      one = scalar(1.0)
      assert Native.item(Enum.reduce(1..5_000, one, fn _, x -> run({:add, x, one}) end)) == 5001.0
    end

    test "with linear algebra among them do too" do
      two = run({:multiply, {:eye, 2, 2, 0, :f32}, scalar(2.0)})
      inverted = Enum.reduce(1..1_001, two, fn _, x -> run({:inv, x}) end)
      assert numbers(inverted) == [0.5, 0.0, 0.0, 0.5]
    end
  end

  test "einsum, the kernels and run build from many processes on one stream" do
    stream = Native.stream_new(Native.default_device())
    x = array([1.0, 2.0, 3.0, 4.0], [2, 2], :f32, stream)

    for _ <- 1..100 do
      Task.async(fn ->
        for _ <- 1..10, do: numbers(Native.einsum("ij,jk->ik", [x, x], stream))
      end)
    end
    |> Task.await_many(:infinity)
    |> List.flatten()
    |> Enum.chunk_every(4)
    |> Enum.each(&assert(&1 == [7.0, 10.0, 15.0, 22.0]))
  end
end
