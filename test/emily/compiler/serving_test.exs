defmodule Emily.Compiler.ServingTest do
  # Nx.Serving with Emily.Compiler: partitions, each with a stream of its own.
  use Emily.CompilerCase, async: true

  alias Emily.Compiler.Streams

  import Nx.Defn

  defn looped(x) do
    {x, _} =
      while {x, i = 0}, i < 3 do
        {x * 2, i + 1}
      end

    x
  end

  # A program that tells the test where it runs, and goes on when it may.
  defp serving(options) do
    test = self()

    Nx.Serving.new(
      fn options ->
        meet = fn t ->
          send(test, {:in, options[:partition], self(), t})

          receive do
            :go_on -> :ok
          end
        end

        Nx.Defn.jit(fn x -> x |> looped() |> observe(meet) |> Nx.add(1) end, options)
      end,
      [compiler: Emily.Compiler] ++ options
    )
  end

  defp batch(n), do: Nx.Batch.stack([Nx.tensor([n, n + 1])])

  test "two partitions run two batches side by side" do
    options = [partitions: true, batch_size: 1, name: __MODULE__]
    start_supervised!({Nx.Serving, [serving: serving(max_concurrency: 2)] ++ options})

    tasks =
      for n <- [1, 10], do: Task.async(fn -> Nx.Serving.batched_run(__MODULE__, batch(n)) end)

    # Both are amid their programs before either may go on.
    assert_receive {:in, first, first_pid, seen}
    device = Emily.Native.default_device()
    assert %{data: %Emily.Backend{device: ^device}} = seen
    assert_receive {:in, second, second_pid, _seen}
    assert Enum.sort([first, second]) == [0, 1]
    assert first_pid != second_pid

    for pid <- [first_pid, second_pid], do: send(pid, :go_on)
    results = Task.await_many(tasks, :infinity)

    for {result, n} <- Enum.zip(results, [1, 10]),
        do: assert_equal(result, Nx.tensor([[8 * n + 1, 8 * n + 9]]))
  end

  test "without partitions the second batch waits for the first" do
    options = [batch_size: 1, name: __MODULE__.One]
    start_supervised!({Nx.Serving, [serving: serving(max_concurrency: 2)] ++ options})

    tasks =
      for n <- [1, 10], do: Task.async(fn -> Nx.Serving.batched_run(__MODULE__.One, batch(n)) end)

    for _ <- tasks do
      assert_receive {:in, nil, pid, _seen}
      refute_received {:in, _, _, _}
      send(pid, :go_on)
    end

    Task.await_many(tasks, :infinity)
  end

  test "each partition has its own stream, which stays" do
    options = [max_concurrency: 3, hooks: %{}]
    partitions = Emily.Compiler.__partitions_options__(options)
    assert for(p <- partitions, do: p[:partition]) == [0, 1, 2]
    # Where there are cards, each has one of them too.
    assert for(p <- partitions, do: Keyword.drop(p, [:partition, :device])) ==
             List.duplicate(options, 3)

    streams = for p <- partitions, do: Streams.fetch(:cpu, p[:partition])
    assert Enum.all?(streams, &is_reference/1)
    assert length(Enum.uniq(streams)) == 3
    assert streams == for(p <- partitions, do: Streams.fetch(:cpu, p[:partition]))
    assert Streams.fetch(:cpu, nil) == :cpu

    # Many processes that ask first get the same one.
    asked = for _ <- 1..20, do: Task.async(fn -> Streams.fetch(:cpu, 17) end)
    assert [_one] = asked |> Task.await_many(:infinity) |> Enum.uniq()
  end

  test "a partition computes on its stream" do
    run = fn partition ->
      options = [compiler: Emily.Compiler, partition: partition, max_concurrency: 2]
      compiled(&looped/1, [Nx.tensor([1, 2])], options)
    end

    # A pattern finds nothing in a module that is not loaded yet.
    Code.ensure_loaded!(Emily.Native.Program)
    :erlang.trace_pattern({Emily.Native.Program, :run, 5}, true, [])

    for partition <- [0, 1, nil] do
      task =
        Task.async(fn ->
          receive do
            :run -> run.(partition)
          end
        end)

      :erlang.trace(task.pid, true, [:call])
      send(task.pid, :run)
      assert_equal(Task.await(task, :infinity), Nx.tensor([8, 16]))
      stream = Streams.fetch(Emily.Native.default_device(), partition)
      assert_receive {:trace, _, :call, {Emily.Native.Program, :run, [_, _, ^stream, _, _]}}
    end
  after
    :erlang.trace_pattern({Emily.Native.Program, :run, 5}, false, [])
  end

  test "a hook of the serving streams" do
    serving =
      Nx.Serving.new(
        fn options -> Nx.Defn.jit(fn x -> observe(looped(x), :done) end, options) end,
        compiler: Emily.Compiler
      )
      |> Nx.Serving.streaming(hooks: [:done])

    [{:done, seen}, {:batch, result, _info}] =
      serving |> Nx.Serving.run(batch(3)) |> Enum.to_list()

    assert_equal(seen, Nx.tensor([[24, 32]]))
    assert_equal(result, Nx.tensor([[24, 32]]))
  end
end
