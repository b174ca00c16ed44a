defmodule Attack.Death.Hunger do
  @moduledoc false
  # A VM that may take a gigabyte more than it has: whatever wants more is told so, and the next call works.

  import Attack.Scene, only: [fault: 1, count: 1]

  alias Attack.Work

  @gigabyte 1_000_000_000

  @doc "Tries as many things of random sizes."
  def hungry({seed, times}) do
    :rand.seed(:exsss, seed)
    Work.start()
    # What else the VM loads is there before it is limited.
    for kind <- Work.kinds(), do: Work.check!(kind, 7)
    _ = {Exception.message(%Emily.Error{message: ""}), inspect(%{a: 1.5})}
    [_, kilobytes] = Regex.run(~r/VmSize:\s+(\d+)/, File.read!("/proc/self/status"))
    most = String.to_integer(kilobytes) * 1024 + @gigabyte
    {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--as=#{most}"])

    told = for number <- 1..times, do: attempt(number, asked(number, times))
    if :told not in told, do: fault("nothing asked for too much")
    count(times)
  end

  # Most of what is asked for is more than there is; the last certainly is.
  defp asked(times, times), do: {:sum, 30_000}

  defp asked(number, _times) do
    name = Enum.at(~w(sum product sorted kept compiled)a, rem(number, 5))
    {name, round(2_000 * :math.pow(15, :rand.uniform()))}
  end

  defp attempt(number, {name, rows}) do
    me = self()

    {pid, ref} =
      spawn_monitor(fn ->
        Logger.configure(level: :none)
        send(me, {:outcome, outcome(name, rows)})
      end)

    told =
      receive do
        {:outcome, {:fault, text}} -> fault("#{number}, #{name} of #{rows} rows: #{text}")
        {:outcome, outcome} -> outcome
        {:DOWN, ^ref, _, ^pid, reason} -> fault("#{number}, #{name}: #{inspect(reason)}")
      after
        120_000 -> fault("#{number}, #{name} of #{rows} rows hangs")
      end

    receive do
      {:DOWN, ^ref, _, ^pid, _} -> :ok
    after
      0 -> :ok
    end

    works(number, name)
    told
  end

  defp works(number, name) do
    for kind <- Work.kinds(), do: Work.check!(kind, 9)
  rescue
    error -> fault("after #{number}, #{name}: #{inspect(error)}")
  end

  defp outcome(name, rows) do
    case try_it(name, rows) do
      :ok -> :done
      wrong -> {:fault, inspect(wrong)}
    end
  rescue
    error in [Emily.Error, ArgumentError] ->
      message = Exception.message(error)
      if message =~ ~r/memory/, do: :told, else: {:fault, message}

    error ->
      {:fault, inspect(error)}
  end

  defp ones(rows), do: Nx.broadcast(Nx.tensor(1.0), {rows, rows})

  defp try_it(:sum, rows) do
    x = Nx.iota({rows, rows}, type: :f64)
    same(Nx.sum(Nx.subtract(x, Nx.reverse(x))), 0.0)
  end

  defp try_it(:product, rows) do
    rows = min(rows, 12_000)

    same(
      Nx.dot(Nx.add(ones(rows), 0.0), Nx.broadcast(Nx.tensor(1.0), {rows, 1}))[[0, 0]],
      1.0 * rows
    )
  end

  defp try_it(:sorted, rows) do
    x = {rows, rows} |> Nx.iota(type: :f32) |> Nx.negate() |> Nx.flatten()
    same(Nx.sort(Nx.slice(x, [0], [1000]))[0], -999.0)
    same(Nx.reduce_max(Nx.sort(x)), 0.0)
  end

  defp try_it(:kept, rows) do
    kept = for i <- 1..8, do: Emily.eval([Nx.add(ones(div(rows, 2)), i)]) && i
    if length(kept) == 8, do: :ok, else: kept
  end

  defp try_it(:compiled, rows) do
    jitted = Nx.Defn.jit(&Work.looped/1, compiler: Emily.Compiler)
    same(Nx.reduce_min(jitted.(Nx.broadcast(3, {rows, rows}))), 127)
  end

  # The zeros of both signs are the same.
  defp same(tensor, expected) do
    found = Nx.to_number(tensor)
    if found == expected, do: :ok, else: {:found, found, :expected, expected}
  end
end
