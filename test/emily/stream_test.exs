defmodule Emily.StreamTest do
  use Emily.BackendCase, async: true

  alias Emily.Stream

  doctest Emily.Stream

  @on_emily {Emily.Backend, device: :cpu}

  defp inside, do: Stream.of(:cpu)

  test "a stream is the process's within the function alone" do
    [outer, inner] = [Stream.new(:cpu), Stream.new(:cpu)]
    assert inside() == :cpu

    assert Stream.with_stream(outer, fn ->
             assert inside() == outer.ref
             assert Stream.with_stream(inner, fn -> inside() end) == inner.ref
             assert inside() == outer.ref
             # A GPU's work stays there.
             assert Stream.of(:gpu) == :gpu
             assert Task.await(Task.async(fn -> inside() end)) == :cpu
             :done
           end) == :done

    assert inside() == :cpu
  end

  test "what raises, throws or exits leaves the stream before it" do
    [outer, inner] = [Stream.new(:cpu), Stream.new(:cpu)]

    Stream.with_stream(outer, fn ->
      for fail <- [fn -> raise "no" end, fn -> throw(:no) end, fn -> exit(:no) end] do
        try do
          Stream.with_stream(inner, fail)
          flunk("nothing was raised")
        catch
          kind, _ when kind in [:error, :throw, :exit] -> :ok
        end

        assert inside() == outer.ref
      end
    end)

    assert inside() == :cpu
  end

  test "operations, compiled functions and linear algebra give the same on a stream" do
    x = Nx.tensor([[2.0, 1.0], [1.0, 3.0]], backend: @on_emily)
    loop = Nx.Defn.jit(&halved/1, compiler: Emily.Compiler)

    for fun <- [
          &Nx.exp/1,
          &Nx.dot(&1, &1),
          &Nx.LinAlg.cholesky/1,
          &Nx.sort/1,
          loop,
          &Nx.backend_copy(&1, @on_emily)
        ] do
      expected = Nx.backend_copy(fun.(x))
      stream = Stream.new(:cpu)
      assert Stream.with_stream(stream, fn -> fun.(x) |> Nx.backend_copy() end) == expected
      # Read by the default stream's process, and mixed with its tensors.
      y = Stream.with_stream(stream, fn -> fun.(x) end)
      assert Nx.backend_copy(Nx.add(y, 0)) == expected
    end
  end

  import Nx.Defn

  defn halved(x) do
    while x, Nx.any(x > 0.5) do
      x / 2
    end
  end

  test "many processes have streams of their own" do
    for n <- 1..16 do
      Task.async(fn ->
        Stream.with_stream(Stream.new(:cpu), fn ->
          for i <- 1..20 do
            x = Nx.iota({1000}, backend: @on_emily) |> Nx.multiply(n) |> Nx.add(i)
            assert Nx.sum(x) |> Nx.to_number() == n * 499_500 + 1000 * i
          end
        end)
      end)
    end
    |> Task.await_many(:infinity)
  end

  describe "a closed stream" do
    test "refuses the next operation, eager and compiled, and may be closed again" do
      stream = Stream.new(:cpu)
      x = Nx.tensor([1.0, 2.0], backend: {Emily.Backend, device: :cpu})
      compiled = Nx.Defn.jit(&Nx.exp/1, compiler: Emily.Compiler, device: :cpu)
      assert Stream.close(stream) == :ok
      assert Stream.close(stream) == :ok

      for fun <- [&Nx.exp/1, compiled, &Nx.LinAlg.norm/1] do
        assert_raise ArgumentError, ~r/the stream is closed/, fn ->
          Stream.with_stream(stream, fn -> fun.(x) end)
        end
      end

      assert inside() == :cpu
      assert Nx.to_list(Nx.add(x, 1)) == [2.0, 3.0]
    end

    test "gives what is computed, and an error for what is not" do
      stream = Stream.new(:cpu)

      [small, large, computed] =
        Stream.with_stream(stream, fn ->
          x = Nx.iota({200, 200}, type: :f32, backend: @on_emily)
          computed = Nx.add(x, 1)
          Emily.eval(computed)
          [Nx.add(Nx.tensor([1.0], backend: @on_emily), 1), Nx.dot(x, x), computed]
        end)

      Stream.close(stream)
      assert Nx.to_number(computed[[0, 1]]) == 2.0
      assert Nx.to_binary(computed) == Nx.to_binary(Nx.iota({200, 200}, type: :f32) |> Nx.add(1))

      for lazy <- [small, large],
          read <- [&Nx.to_binary/1, &Emily.eval/1, &Emily.async_eval([&1])] do
        assert_raise Emily.Error, "the stream is closed", fn -> read.(lazy) end
      end
    end

    test "raises for those who wait" do
      stream = Stream.new(:cpu)
      test = self()

      waiting =
        for n <- 1..40 do
          Task.async(fn ->
            Stream.with_stream(stream, fn ->
              x = Nx.broadcast(Nx.tensor(1.0 * n, backend: @on_emily), {1200, 1200})
              lazy = Enum.reduce(1..4, x, fn _, y -> Nx.dot(y, Nx.divide(x, 1200 * n)) end)
              send(test, :built)

              try do
                Nx.to_number(lazy[[0, 0]])
              rescue
                error in [Emily.Error, ArgumentError] -> error
              end
            end)
          end)
        end

      for _ <- waiting, do: assert_receive(:built)
      Stream.close(stream)

      # What the device has already is computed; the device has two at once.
      refused =
        for {answer, n} <- waiting |> Task.await_many(:infinity) |> Enum.with_index(1),
            is_exception(answer) or not assert_in_delta(answer, n, 1.0e-3),
            do: answer

      assert length(refused) >= 1
      for error <- refused, do: assert(Exception.message(error) =~ "the stream is closed")
    end
  end

  # Those of a process come back when it has died.
  if File.dir?("/proc/self/task") do
    test "streams that nobody holds are used again" do
      threads = fn -> length(File.ls!("/proc/self/task")) end

      use_one = fn ->
        Task.async(fn ->
          stream = Stream.new(:cpu)

          Stream.with_stream(stream, fn ->
            Nx.to_number(Nx.exp(Nx.tensor(0.0, backend: @on_emily)))
          end)
        end)
        |> Task.await(:infinity)
      end

      for _ <- 1..20, do: assert(use_one.() == 1.0)
      before = threads.()
      for _ <- 1..300, do: assert(use_one.() == 1.0)
      # MLX would have kept 300 threads.
      assert threads.() < before + 150
    end
  end

  test "wrong arguments are refused by name" do
    for device <- [:tpu, "cpu", nil, {:gpu, -1}, {:cpu, 1}],
        do: assert_raise(ArgumentError, ~r"Stream.new/1", fn -> Stream.new(device) end)

    for stream <- [:cpu, nil, make_ref()] do
      assert_raise ArgumentError, ~r"with_stream/2", fn ->
        Stream.with_stream(stream, fn -> 1 end)
      end

      assert_raise ArgumentError, ~r"close/1", fn -> Stream.close(stream) end
    end

    stream = Stream.new(:cpu)
    assert_raise ArgumentError, ~r"with_stream/2", fn -> Stream.with_stream(stream, & &1) end

    if :gpu not in Emily.Native.devices(),
      do: assert_raise(ArgumentError, ~r/no GPU/, fn -> Stream.new(:gpu) end)
  end
end
