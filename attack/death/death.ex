defmodule Attack.Death do
  @moduledoc false
  # What ends amid work: processes, the VM, the application, the NIF's module, a node, and memory. What is left goes on.

  import Attack.Scene, only: [fault: 1, count: 1]

  alias Attack.{Child, Scene, Work}

  # Nothing takes longer to answer.
  @patience 60_000

  @doc """
  All scenes, in about `seconds`: `:killed` processes, each `:endings` of a VM, `:restarts` of the application,
  `:loads` of the NIF's module, `:nodes` lost, and `:hungry` attempts without memory.
  """
  def run(%{seed: seed, seconds: seconds}, counts) do
    limit = 120 + 2 * seconds
    play = fn name, count -> Scene.play(__MODULE__, name, {seed, count}, limit) end

    Scene.together([
      play.(:processes, counts[:killed]),
      endings(seed, counts[:endings]),
      play.(:restarts, counts[:restarts]),
      play.(:loads, counts[:loads]),
      Scene.play(Attack.Death.Nodes, :lost, {seed, counts[:nodes]}, limit),
      # The C library would reserve addresses for each thread, at times of its choosing.
      Scene.play(Attack.Death.Hunger, :hungry, {seed, counts[:hungry]}, limit, [
        {"MALLOC_ARENA_MAX", "1"}
      ])
    ])
  end

  ## Processes

  @at_once 50

  @doc "Kills processes amid work of all kinds."
  def processes({seed, killed}) do
    :rand.seed(:exsss, seed)
    Work.start()
    alive!("before")
    before = state()
    rounds = div(killed + @at_once - 1, @at_once)
    for _ <- 1..rounds, do: round()
    alive!("after #{rounds * @at_once} deaths")
    left(before, settled(before, 100))
    count(rounds * @at_once)
  end

  defp round do
    started = for _ <- 1..@at_once, do: spawn_monitor(&work/0)
    Process.sleep(:rand.uniform(30) - 1)
    for {pid, _} <- started, do: Process.exit(pid, :kill)

    for {pid, ref} <- started do
      receive do
        {:DOWN, ^ref, :process, ^pid, :killed} -> :ok
        {:DOWN, ^ref, :process, ^pid, reason} -> fault("a process ended by #{inspect(reason)}")
      after
        @patience -> fault("a killed process does not die")
      end
    end

    alive!("between")
  end

  @doc "Works until it is killed."
  def work do
    Work.check!(Enum.random(Work.kinds()), Enum.random(1..100), Enum.random([1, 16, 200]))
    work()
  end

  @doc "Does work of each kind; what fails or hangs is a fault."
  def alive!(when_) do
    for kind <- Work.kinds() do
      {pid, ref} = spawn_monitor(fn -> Work.check!(kind, Enum.random(1..100)) end)

      receive do
        {:DOWN, ^ref, :process, ^pid, :normal} -> :ok
        {:DOWN, ^ref, :process, ^pid, reason} -> fault("#{kind} #{when_}: #{inspect(reason)}")
      after
        @patience -> fault("#{kind} #{when_} hangs")
      end
    end
  end

  # What must not grow.
  defp state do
    :erlang.garbage_collect()

    %{
      processes: :erlang.system_info(:process_count),
      messages: self() |> Process.info(:message_queue_len) |> elem(1),
      bytes: Emily.Native.memory().active,
      threads: threads()
    }
  end

  defp threads do
    [_, count] = Regex.run(~r/Threads:\s+(\d+)/, File.read!("/proc/self/status"))
    String.to_integer(count)
  end

  # What was asked for goes on for a moment after who asked has died.
  defp settled(before, attempts) do
    after_ = state()

    if attempts == 0 or more(before, after_) == [] do
      after_
    else
      Process.sleep(100)
      settled(before, attempts - 1)
    end
  end

  defp left(before, after_) do
    for key <- more(before, after_),
        do: fault("#{key}: #{before[key]} before, #{after_[key]} after")
  end

  # The constants of programs stay; a serving's batch is collected when its process is.
  @allowed %{processes: 5, messages: 0, bytes: 16_000_000, threads: 16}

  defp more(before, after_),
    do: for({key, allowed} <- @allowed, after_[key] > before[key] + allowed, do: key)

  ## The VM

  @ends [halt: {:exit, 3}, stop: {:exit, 3}, term: {:exit, 0}, kill: {:signal, 9}]

  defp endings(seed, times) do
    :rand.seed(:exsss, seed)
    answers = for _ <- 1..times, {how, right} <- @ends, do: ending(how, right)
    Scene.together(answers)
  end

  defp ending(how, right) do
    delay = :rand.uniform(200)
    child = Scene.open(__MODULE__, :busy, {how, delay})
    me = self()

    spawn_link(fn ->
      receive do
        :busy -> Process.sleep(delay)
      end

      signal(how, child)
      send(me, :signalled)
    end)
    |> then(fn signaller ->
      start = System.monotonic_time(:millisecond)

      found =
        Child.follow(child, 120, fn line -> if line == "busy", do: send(signaller, :busy) end)

      took = System.monotonic_time(:millisecond) - start

      faults =
        if found == right,
          do: [],
          else: ["#{how} after #{delay} ms ends with #{inspect(found)} after #{took} ms"]

      Process.unlink(signaller)
      Process.exit(signaller, :kill)
      %{cases: 1, faults: faults}
    end)
  end

  defp signal(:term, child), do: System.cmd("kill", ["-TERM", "#{child.pid}"])
  defp signal(:kill, child), do: System.cmd("kill", ["-KILL", "#{child.pid}"])
  defp signal(_how, _child), do: :ok

  @doc "Works, says so, and ends as it is told."
  def busy({how, delay}) do
    Work.start()
    for _ <- 1..8, do: spawn(&work/0)
    spawn(&products/0)
    spawn(&graphs/0)
    Process.sleep(50)
    IO.puts("busy")

    if how in [:halt, :stop] do
      Process.sleep(delay)
      if how == :halt, do: System.halt(3), else: System.stop(3)
    end

    Process.sleep(:infinity)
  end

  # Seconds of work that nobody waits for, with all threads.
  defp products do
    x = Nx.broadcast(Nx.tensor(1.0e-3), {1500, 1500})
    Emily.async_eval([Enum.reduce(1..40, x, fn _, y -> Nx.dot(y, x) end)])
    products()
  end

  # Graphs that take longer to schedule than most ends do to begin.
  defp graphs do
    x = Nx.iota({100, 100}, type: :f32)
    one = fn _, y -> y |> Nx.reverse() |> Nx.cumulative_sum() |> Nx.fft() |> Nx.real() end
    Emily.async_eval([Enum.reduce(1..60, x, one)])
    graphs()
  end

  ## The application

  @doc "Restarts the application amid work."
  def restarts({seed, times}) do
    :rand.seed(:exsss, seed)
    Work.start()

    for _ <- 1..times do
      # Without the application there is no compiler; what is eager goes on.
      eager = for _ <- 1..4, do: spawn_monitor(fn -> again(:eager) end)
      others = for _ <- 1..4, do: spawn_monitor(fn -> again(:compiled) end)
      Process.sleep(:rand.uniform(20))
      :ok = Application.stop(:emily)
      Process.sleep(:rand.uniform(5))
      {:ok, _} = Application.ensure_all_started(:emily)
      alive!("after a restart")

      for {pid, ref} <- eager do
        Process.exit(pid, :kill)

        receive do
          {:DOWN, ^ref, :process, ^pid, :killed} -> :ok
          {:DOWN, ^ref, :process, ^pid, reason} -> fault("eager ended by #{inspect(reason)}")
        after
          @patience -> fault("a killed process does not die")
        end
      end

      for {pid, ref} <- others do
        Process.exit(pid, :kill)

        receive do
          {:DOWN, ^ref, :process, ^pid, _} -> :ok
        after
          @patience -> fault("a compiled call hangs")
        end
      end
    end

    count(times)
  end

  defp again(kind) do
    Work.check!(kind, Enum.random(1..100))
    again(kind)
  end

  ## The module of the NIF

  @nif Emily.Native.Nif

  @doc """
  Loads the NIF's module once more, which its library refuses, then purges it and loads it anew: arrays of the old one
  are refused, new ones are as ever.
  """
  def loads({seed, times}) do
    :rand.seed(:exsss, seed)
    Work.start()

    for _ <- 1..times do
      workers = for _ <- 1..4, do: spawn_monitor(fn -> again(:eager) end)
      old = Nx.add(Nx.iota({64}), 1)
      Nx.to_number(Nx.sum(old))
      {:error, :on_load_failure} = :code.load_file(@nif)
      alive!("after a refused load")
      if Nx.to_number(Nx.sum(old)) != 2080, do: fault("an array after a refused load is another")

      for {pid, _} <- workers, do: Process.exit(pid, :kill)
      for {pid, ref} <- workers, do: receive(do: ({:DOWN, ^ref, :process, ^pid, _} -> :ok))

      :code.purge(@nif)
      true = :code.delete(@nif)
      :code.purge(@nif)
      {:module, @nif} = :code.load_file(@nif)
      refused(old)
      # Programs and servings have arrays of the old one.
      Emily.Compiler.Cache.clear()
      for kind <- [:eager, :compiled, :hooked], do: Work.check!(kind, 7)
    end

    count(times)
  end

  defp refused(old) do
    Nx.to_number(Nx.sum(old))
    fault("an array of an unloaded library is taken")
  rescue
    ArgumentError -> :ok
  end
end
