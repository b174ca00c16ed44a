defmodule Attack.Campaign do
  @moduledoc false
  # Runs cases (`Attack.Cases`) in child VMs, and tells apart how they end.
  #
  # A child writes the number of each case into a file before it runs it. So the case is known of which it died, by which it
  # hangs, or which took its memory. Such a case is run once more, alone in a VM of its own, and the next child goes on behind
  # it.

  alias Attack.{Cases, Child}

  # No call takes longer: of the processor's time, since others may compute on the machine.
  @slowest 10_000
  # A case that is at work for longer hangs, whatever else is computed.
  @hangs 120_000
  # How long a child may take to start.
  @start 600_000
  # Faults of one key that are told in full, and keys after which a campaign ends.
  @told 3
  @most_keys 40

  @doc """
  Runs cases of `module` for `seconds` and answers `%{cases: count, faults: [text]}`.

    * `:workers` - child VMs at once, 2 by default
    * `:cases` - no more than these, `:infinity` by default
    * `:memory` - bytes that a child may take beyond what it has when it has started; 3 GB by default. It is bounded by
      `RLIMIT_AS`
    * `:environment` - of the children
  """
  def run(module, %{seed: seed, seconds: seconds, folder: folder}, opts \\ []) do
    opts =
      Keyword.validate!(opts,
        workers: 2,
        cases: :infinity,
        memory: 3_000_000_000,
        environment: []
      )

    workers = opts[:workers]
    deadline = now() + 1000 * seconds
    each = if opts[:cases] == :infinity, do: 1_000_000_000, else: div(opts[:cases], workers)

    worker = fn index ->
      # Each has the numbers of a range.
      first = index * 1_000_000_000

      %{
        module: module,
        seed: seed,
        folder: Path.join(folder, "#{index}"),
        deadline: deadline,
        first: first,
        next: first,
        last: first + each - 1,
        memory: opts[:memory],
        environment: opts[:environment],
        faults: %{}
      }
      |> children()
    end

    1..workers
    |> Enum.map(&Task.async(fn -> worker.(&1) end))
    |> Task.await_many(:infinity)
    |> summary()
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp summary(workers) do
    faults = Enum.reduce(workers, %{}, &Map.merge(&2, &1.faults, fn _, a, b -> merge(a, b) end))

    %{
      cases: workers |> Enum.map(&(&1.next - &1.first)) |> Enum.sum(),
      faults:
        for({key, {count, texts}} <- faults, do: "#{count} x #{key}\n#{Enum.join(texts, "\n")}")
    }
  end

  defp merge({m, texts}, {n, more}), do: {m + n, Enum.take(texts ++ more, @told)}

  # One child after the other, until the time is over.
  defp children(work) do
    if now() >= work.deadline or work.next > work.last or map_size(work.faults) >= @most_keys,
      do: work,
      else: work |> child() |> children()
  end

  defp child(work) do
    File.rm_rf!(work.folder)
    File.mkdir_p!(work.folder)
    place = place(work.folder)
    File.write!(place, <<work.next::64>>)
    seconds = max(1, div(work.deadline - now(), 1000))

    child =
      open(work, ["run", "#{work.next}", "#{work.last}", "#{seconds}"])

    {work, ending, tail} = follow(child, work, {work.next, now() + @start}, [])
    <<number::64>> = File.read!(place)

    case ending do
      :done -> %{work | next: number}
      ended -> died(%{work | next: number + 1}, number, ended, tail)
    end
  end

  defp open(work, arguments) do
    Child.open(
      [
        "-e",
        "Attack.Campaign.child()",
        inspect(work.module),
        "#{work.seed}",
        work.folder,
        "#{work.memory}"
      ] ++
        arguments,
      work.environment
    )
  end

  # Until the child is done, dead, silent for too long or too large; `{number, late}` is its case, and when that is late.
  defp follow(%{port: port} = child, work, {number, late}, tail) do
    receive do
      {^port, {:data, {_, "@fault " <> text}}} ->
        {key, text} = text |> Base.decode64!() |> :erlang.binary_to_term()
        follow(child, fault(work, key, text), {number, late}, tail)

      {^port, {:data, {_, "@done"}}} ->
        Child.kill(child)
        {work, :done, tail}

      {^port, {:data, {_, line}}} ->
        follow(child, work, {number, late}, Enum.take([line | tail], 20))

      {^port, {:exit_status, status}} ->
        {work, Child.ending(status), tail}
    after
      250 ->
        current = current(work.folder)

        cond do
          current != number ->
            follow(child, work, {current, now() + @hangs}, tail)

          now() > late ->
            Child.kill(child) && {work, :hangs, tail}

          Child.resident(child.pid) > 2 * work.memory ->
            Child.kill(child) && {work, :memory, tail}

          true ->
            follow(child, work, {number, late}, tail)
        end
    end
  end

  defp current(folder) do
    <<number::64>> = folder |> place() |> File.read!()
    number
  end

  defp died(work, number, ending, tail) do
    child = open(work, ["alone", "#{number}"])
    {:ok, lines} = Agent.start_link(fn -> [] end)
    again = Child.follow(child, 180, fn line -> Agent.update(lines, &[line | &1]) end)
    output = lines |> Agent.get(&Enum.reverse/1) |> Enum.take(40)

    text =
      "case #{number} of seed #{work.seed}: #{inspect(ending)}; alone: #{inspect(again)}\n" <>
        Enum.join(Enum.reverse(tail) ++ ["alone:"] ++ output, "\n")

    fault(work, "the VM: #{inspect(ending)}", text)
  end

  defp fault(work, key, text) do
    IO.puts("#{key}\n#{text}\n")
    %{work | faults: Map.update(work.faults, key, {1, [text]}, &merge(&1, {1, [text]}))}
  end

  defp place(folder), do: Path.join(folder, "number")

  ## In the child

  @doc "What a child VM runs, by its arguments."
  def child do
    [module, seed, folder, memory | mode] = System.argv()
    Logger.configure(level: :none)
    {:ok, _} = Application.ensure_all_started(:emily)
    module = Module.concat([module])
    state = module.prepare(String.to_integer(seed), folder)
    limit(String.to_integer(memory))

    case mode do
      ["run" | numbers] ->
        [first, last, seconds] = Enum.map(numbers, &String.to_integer/1)
        {:ok, file} = :file.open(place(folder), [:raw, :binary, :write, :read])
        cases(module, state, first, last, now() + 1000 * seconds, file, %{})
        IO.puts("@done")
        # The parent ends this VM: what stopping it means is another part's.
        Process.sleep(:infinity)

      ["alone", number] ->
        number = String.to_integer(number)
        IO.puts(module.describe(state, number))
        IO.puts(inspect(timed(module, state, number)))
        # What the case left behind shows when it is freed.
        :erlang.garbage_collect()
        Process.sleep(1000)
    end
  end

  defp cases(module, state, number, last, deadline, file, told) do
    :ok = :file.pwrite(file, 0, <<number::64>>)

    if number <= last and now() < deadline do
      told =
        case timed(module, state, number) do
          :ok -> told
          {:fault, key, text} -> tell(told, number, to_string(key), text)
        end

      cases(module, state, number + 1, last, deadline, file, told)
    end
  end

  defp timed(module, state, number) do
    start = worked()
    result = module.run(state, number)
    took = worked() - start

    if took > @slowest and result == :ok,
      do: {:fault, "slow", "took #{took} ms: #{module.describe(state, number)}"},
      else: result
  end

  # Milliseconds of all threads of the VM.
  defp worked, do: :runtime |> :erlang.statistics() |> elem(0)

  defp tell(told, number, key, text) do
    if Map.get(told, key, 0) < @told do
      fault = {key, "case #{number}: " <> text}
      IO.puts("@fault " <> Base.encode64(:erlang.term_to_binary(fault)))
    end

    Map.update(told, key, 1, &(&1 + 1))
  end

  # Whoever asks for more is refused by the system: so by Emily, and nobody else on the machine is ended for it.
  defp limit(memory) do
    [_, kilobytes] = Regex.run(~r/VmSize:\s+(\d+)/, File.read!("/proc/self/status"))
    most = String.to_integer(kilobytes) * 1024 + memory
    {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--as=#{most}"])
  end

  @doc "Runs cases in this VM, as the tests do: the faults."
  def here(module, seed, folder, numbers) do
    state = module.prepare(seed, folder)

    for number <- numbers,
        Cases.seed(seed, number),
        fault = module.run(state, number),
        fault != :ok,
        do: fault
  end
end
