defmodule Bench.Ticks do
  @moduledoc false
  # How late a process that wakes every millisecond is, alone and while ten processes evaluate.

  @evaluating 10
  @ticks 300

  @doc "Delays in nanoseconds: `%{idle: list, busy: list}`, of some rounds taking turns."
  def measure(rounds) do
    matrix = Nx.iota({512, 512}, type: :f32) |> Nx.divide(262_144)

    for _ <- 1..rounds, reduce: %{idle: [], busy: [], evaluations: 0} do
      all ->
        Bench.Timing.settle()
        idle = ticks()
        counter = :counters.new(1, [])
        processes = for _ <- 1..@evaluating, do: spawn_link(fn -> evaluate(matrix, counter) end)
        Bench.Timing.settle()
        busy = ticks()
        Enum.each(processes, &stop/1)

        %{
          idle: idle ++ all.idle,
          busy: busy ++ all.busy,
          evaluations: all.evaluations + :counters.get(counter, 1)
        }
    end
  end

  # A matrix product, a few small operations, and the answer read.
  defp evaluate(matrix, counter) do
    matrix |> Nx.dot(matrix) |> Nx.add(matrix) |> Nx.sum() |> Nx.to_binary()
    :counters.add(counter, 1, 1)
    evaluate(matrix, counter)
  end

  defp stop(process) do
    monitor = Process.monitor(process)
    Process.unlink(process)
    Process.exit(process, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^process, _} -> :ok
    end
  end

  defp ticks do
    Task.async(fn -> for _ <- 1..@ticks, do: delay() end) |> Task.await(:infinity)
  end

  defp delay do
    start = System.monotonic_time(:nanosecond)

    receive do
    after
      1 -> System.monotonic_time(:nanosecond) - start - 1_000_000
    end
  end
end
