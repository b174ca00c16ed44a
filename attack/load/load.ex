defmodule Attack.Load do
  @moduledoc false
  # A hundred processes at once, each result checked, while a process looks how late it wakes; then many rounds of one
  # program and of many shapes, after which memory is what it was.

  import Attack.Scene, only: [fault: 1, count: 1]

  alias Attack.{Scene, Work}

  @at_once 100
  # Of a process that sleeps for a millisecond, in microseconds; and how late it is on a machine that does nothing else.
  @late 10_000

  def run(%{seed: seed, seconds: seconds}, counts) do
    play = &Scene.play(__MODULE__, &1, {seed, counts[&2]}, 600 + 4 * seconds)
    Scene.together([play.(:together, :seconds), play.(:rounds, :rounds), play.(:shapes, :shapes)])
  end

  ## Together

  @doc "A hundred processes work for as many seconds."
  def together({seed, seconds}) do
    :rand.seed(:exsss, seed)
    Work.start()
    for kind <- Work.kinds(), do: Work.check!(kind, 7)
    idle = late(500)
    deadline = now() + 1000 * seconds
    me = self()

    workers =
      for i <- 1..@at_once do
        kind = Enum.at([:eager, :compiled, :served], rem(i, 3))
        spawn_monitor(fn -> send(me, {:done, work(kind, deadline, 0)}) end)
      end

    {late, seen} = watch(deadline, [], [])
    done = Enum.sum(for {pid, ref} <- workers, do: ended(pid, ref))
    done = done + Enum.sum(drain([]))

    IO.puts(
      "#{done} results of #{@at_once} processes, none wrong unless said; a tick is late by (us, p99) #{p99(late)}, " <>
        "#{p99(idle)} before; most messages that wait #{seen |> Enum.map(&elem(&1, 0)) |> Enum.max()}, most that may run #{seen |> Enum.map(&elem(&1, 1)) |> Enum.max()}"
    )

    # What else runs on the machine makes ticks late too: it did so before.
    if p99(late) > @late + p99(idle), do: fault("a tick is late by #{p99(late)} us, p99")
    grows("messages that wait", Enum.map(seen, &elem(&1, 0)), 2 * @at_once)
    count(done)
  end

  defp work(kind, deadline, done) do
    if now() < deadline do
      Work.check!(kind, Enum.random(1..100), Enum.random([1, 16, 64]))
      work(kind, deadline, done + 1)
    else
      done
    end
  end

  defp ended(pid, ref) do
    receive do
      {:DOWN, ^ref, :process, ^pid, :normal} -> 0
      {:DOWN, ^ref, :process, ^pid, reason} -> fault(inspect(reason)) && 0
    after
      60_000 -> fault("a process hangs") && 0
    end
  end

  defp drain(counts) do
    receive do
      {:done, count} -> drain([count | counts])
    after
      0 -> counts
    end
  end

  # How late ticks are, and what waits.
  defp watch(deadline, late, seen) do
    if now() < deadline do
      ticks = late(50)
      watch(deadline, ticks ++ late, [waiting() | seen])
    else
      {late, Enum.reverse(seen)}
    end
  end

  defp late(ticks) do
    for _ <- 1..ticks do
      start = System.monotonic_time(:microsecond)
      Process.sleep(1)
      # A sleep may take up to one more millisecond.
      max(0, System.monotonic_time(:microsecond) - start - 2000)
    end
  end

  # Messages of this process are the workers' last.
  defp waiting do
    messages =
      for pid <- Process.list(),
          pid != self(),
          {:message_queue_len, length} <- [Process.info(pid, :message_queue_len)],
          do: length

    {Enum.sum(messages), :erlang.statistics(:total_run_queue_lengths)}
  end

  # The end is compared with the first tenth.
  defp grows(name, values, allowed) do
    tenth = max(1, div(length(values), 10))
    first = values |> Enum.take(tenth) |> Enum.max()
    last = values |> Enum.take(-tenth) |> Enum.min()
    if last > first + allowed, do: fault("#{name}: #{first} at first, #{last} at last")
  end

  defp p99(values), do: values |> Enum.sort() |> Enum.at(div(99 * length(values), 100))

  ## Rounds

  @doc "A compiled step, as many times; each takes what the last gave."
  def rounds({_seed, times}) do
    Work.start()

    step =
      Nx.Defn.jit(fn x, y -> x |> Nx.dot(y) |> Nx.add(1) |> Nx.remainder(97) end,
        compiler: Emily.Compiler
      )

    y = Nx.eye(16, type: :s64)
    x = Nx.iota({16, 16}, type: :s64)
    # Each adds one, of which the remainder stays.
    right = fn round -> Enum.sum(for i <- 0..255, do: rem(rem(i, 97) + round, 97)) end

    steady("rounds", times, Nx.remainder(x, 97), fn round, x ->
      x = step.(x, y)

      if rem(round, 100) == 0 and Nx.to_number(Nx.sum(x)) != right.(round),
        do: fault("round #{round} is wrong")

      x
    end)
  end

  @doc "As many shapes, each once for operations and for a program of its own."
  def shapes({_seed, times}) do
    Work.start()
    double = Nx.Defn.jit(&Work.twice/1, compiler: Emily.Compiler)

    steady("shapes", times, nil, fn number, _ ->
      # Of numbers below 100,000 no two have the same.
      shape = {rem(number, 317) + 1, div(number, 317) + 1}
      x = Nx.broadcast(Nx.tensor(number), shape)
      sum = x |> Nx.as_type(:s64) |> double.() |> Nx.sum() |> Nx.to_number()
      if sum != Tuple.product(shape) * (2 * number + 1), do: fault("#{inspect(shape)} is wrong")
      nil
    end)
  end

  # Resident memory at the end is that after the first tenth.
  defp steady(name, times, state, fun) do
    tenth = max(1, div(times, 10))
    state = Enum.reduce(1..tenth, state, fun)
    before = resident()
    Enum.reduce((tenth + 1)..times//1, state, fun)
    after_ = resident()
    grown = 100 * (after_ - before) / before

    IO.puts(
      "#{name}: #{times}, resident #{div(before, 1000)} kB after a tenth, #{Float.round(grown, 2)} % more at the end"
    )

    # Fewer do not reach what the caches keep.
    if times >= 100_000 and grown > 1,
      do: fault("#{name}: resident memory grows by #{Float.round(grown, 2)} %")

    count(times)
  end

  defp resident do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Attack.Child.resident(System.pid())
  end

  defp now, do: System.monotonic_time(:millisecond)
end
