defmodule Bench.Timing do
  @moduledoc false
  # Medians of timings, in nanoseconds for one call.

  @limits %{warm_up: 2, warm_up_ms: 0, samples: 7, budget_ms: 60}
  # The threads of OpenBLAS spin this long after their last work, and the BEAM's schedulers a
  # little: the other side is measured after that.
  @settle_ms 50

  @doc """
  At least so many calls to warm up and so many samples, and as many as the milliseconds allow.
  """
  def limits, do: @limits
  def settle, do: Process.sleep(@settle_ms)

  @doc "The median time of a figure, in a process of its own, so that no other garbage is in it."
  def isolated(figure, limits \\ @limits) do
    settle()
    Task.async(fn -> median(figure, limits) end) |> Task.await(:infinity)
  end

  defp median(%{calls: calls, run: run} = figure, limits) do
    between = figure[:between] || between(figure[:collect])
    take(calls, run, between, limits.warm_up, limits.warm_up_ms)
    middle(take(calls, run, between, limits.samples, limits.budget_ms))
  end

  # What a large result holds is freed between the timings, as on Python's side.
  defp between(true), do: fn -> :erlang.garbage_collect() end
  defp between(nil), do: fn -> :ok end

  # At least so many samples, and more until the time is over.
  defp take(calls, run, between, least, ms) do
    until = now() + ms * 1_000_000

    Stream.repeatedly(fn -> sample(calls, run, between) end)
    |> Enum.reduce_while([], fn time, taken ->
      taken = [time | taken]
      enough? = length(taken) >= least and now() >= until
      {if(enough?, do: :halt, else: :cont), taken}
    end)
  end

  defp sample(calls, run, between) do
    start = now()
    repeat(calls, run)
    time = (now() - start) / calls
    between.()
    time
  end

  defp repeat(1, run), do: run.()

  defp repeat(calls, run) do
    run.()
    repeat(calls - 1, run)
  end

  defp now, do: System.monotonic_time(:nanosecond)

  @doc "The median of a list."
  def middle(list), do: quantile(list, 0.5)

  @doc "The smallest element that a share of the list does not exceed."
  def quantile(list, share) do
    sorted = Enum.sort(list)
    Enum.at(sorted, max(ceil(share * length(sorted)) - 1, 0))
  end
end
