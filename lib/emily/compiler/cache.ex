defmodule Emily.Compiler.Cache do
  @moduledoc """
  The programs that `Emily.Compiler` keeps for `Nx.Defn.jit/2`.

  A function called again with arguments of the same shapes, types and names finds its program here, if it
  is the same function: closures are when they close over the same values. A function that closes over new
  tensors each time is compiled each time: pass them as arguments, or say `cache: false`.

  When a module is loaded anew with other code, as a cell of Livebook does or `recompile` in IEx, all
  programs are forgotten, since any may have called it when it was traced.

  ## Bounds

  The programs that were not used for the longest time are forgotten where there are too many of them,
  where their keys and constants take too much memory (the tensors that functions close over, on any
  backend), or where they are too old. The one used last stays, however large. The bounds are set by

      config :emily, :compiler_cache, programs: 256, bytes: 64 * 1024 * 1024, age: 3_600_000

    * `:programs` - how many there may be; 256 by default
    * `:bytes` - how much memory they may hold; 64 MiB by default
    * `:age` - the milliseconds after which a program that was not used is forgotten; an hour by default

  Each may be `:infinity`. Anything else raises an `ArgumentError` where a program is compiled.

      iex> Emily.Compiler.Cache.clear()
      iex> double = Nx.Defn.jit(&Nx.multiply(&1, 2), compiler: Emily.Compiler)
      iex> for n <- 1..3, do: double.(n)
      iex> %{programs: 1, hits: hits, misses: misses} = Emily.Compiler.Cache.info()
      iex> {hits >= 2, misses >= 1}
      {true, true}
  """

  use GenServer

  alias Emily.Compiler.Weight

  require Logger

  @bounds [programs: 256, bytes: 64 * 1024 * 1024, age: 3_600_000]
  @counters {__MODULE__, :counters}
  @hits 1
  @misses 2
  # How often programs were forgotten.
  @forgotten 3

  # Where a process has the program that it used last.
  @last {__MODULE__, :last}

  # How often programs are looked at for their age, in milliseconds.
  @interval 60_000

  @doc false
  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  # The process owns the table, and forgets what is old.
  @impl true
  def init([]) do
    :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    :persistent_term.put(@counters, :counters.new(3, [:write_concurrency]))
    Process.send_after(self(), :forget, @interval)
    {:ok, nil}
  end

  @impl true
  def handle_info(:forget, state) do
    Process.send_after(self(), :forget, @interval)
    forget(bounds())
    {:noreply, state}
  rescue
    # Bounds that cannot be: who compiles is told.
    ArgumentError -> {:noreply, state}
  end

  @doc """
  How many programs there are, the bytes that they hold, how many calls have found theirs since the VM
  started, and how many have not. `:capacity` is the greatest number of programs.
  """
  @spec info() :: %{
          programs: non_neg_integer,
          bytes: non_neg_integer,
          hits: non_neg_integer,
          misses: non_neg_integer,
          capacity: pos_integer | :infinity
        }
  def info do
    counters = :persistent_term.get(@counters)

    %{
      programs: :ets.info(__MODULE__, :size),
      bytes: Enum.sum(for {_used, bytes, _at} <- usage(), do: bytes),
      hits: :counters.get(counters, @hits),
      misses: :counters.get(counters, @misses),
      capacity: bounds().programs
    }
  end

  @doc "Forgets all programs. Those that are still referred to go on working."
  @spec clear() :: :ok
  def clear do
    :ets.delete_all_objects(__MODULE__)
    count(@forgotten)
  end

  @doc false
  # The program under `key`, by `compile` where there is none. A key may be large, as a model that a function closes over: to
  # find it here is to walk over all of it, but not where it is the very same terms as in the process's last call.
  def fetch(_key, %{cache: false}, compile), do: compile.()

  def fetch(key, options, compile) do
    forgotten = :counters.get(:persistent_term.get(@counters), @forgotten)

    case Process.get(@last) do
      {^key, executable, used, ^forgotten} ->
        found(key, executable, used, options)

      _other ->
        case :ets.lookup(__MODULE__, key) do
          [{^key, executable, used, _bytes}] ->
            Process.put(@last, {key, executable, used, forgotten})
            found(key, executable, used, options)

          [] ->
            missed(key, options, compile)
        end
    end
  end

  defp found(key, executable, used, options) do
    count(@hits)
    log(options, key, "found")
    :atomics.put(used, 1, now())
    executable
  end

  defp missed(key, options, compile) do
    count(@misses)
    bounds = bounds()
    log(options, key, "compiled")
    %module{} = executable = compile.()

    if kept = module.kept(executable) do
      bytes = Weight.bytes(key) + module.bytes(executable)
      used = :atomics.new(1, [])
      :atomics.put(used, 1, now())
      :ets.insert(__MODULE__, {key, kept, used, bytes})
      forget(bounds)
    end

    executable
  end

  # By the time of use alone: a key holds what its function closes over, which may be large to copy.
  defp forget(bounds) do
    age = if is_integer(bounds.age), do: milliseconds(bounds.age), else: bounds.age
    usage = Enum.sort(usage(), :desc)

    if last = beyond(usage, 1, 0, %{bounds | age: age}, now()) do
      for {used, _bytes, at} <- usage,
          used <= last,
          do: :ets.match_delete(__MODULE__, {:_, :_, at, :_})

      count(@forgotten)
    end
  end

  # When the last of those that have to go was used. An integer is less than `:infinity`.
  defp beyond([], _programs, _bytes, _bounds, _now), do: nil

  defp beyond([{used, bytes, _at} | usage], programs, before, bounds, now) do
    bytes = before + bytes
    heavy? = programs > 1 and bytes > bounds.bytes

    if heavy? or programs > bounds.programs or now - used > bounds.age,
      do: used,
      else: beyond(usage, programs + 1, bytes, bounds, now)
  end

  # When each was used, what it holds, and where the former is written.
  defp usage do
    rows = :ets.select(__MODULE__, [{{:_, :_, :"$1", :"$2"}, [], [{{:"$1", :"$2"}}]}])
    for {used, bytes} <- rows, do: {:atomics.get(used, 1), bytes, used}
  end

  defp bounds do
    bounds =
      :emily
      |> Application.get_env(:compiler_cache, [])
      |> Emily.Native.Options.validate!(@bounds, "config :emily, :compiler_cache")

    for {name, bound} <- bounds, bound != :infinity, not (is_integer(bound) and bound > 0) do
      raise ArgumentError,
            "config :emily, :compiler_cache: #{inspect(name)} cannot be #{inspect(bound)}; " <>
              "it takes a positive integer or :infinity"
    end

    Map.new(bounds)
  end

  defp count(index), do: :counters.add(:persistent_term.get(@counters), index, 1)
  defp now, do: :erlang.monotonic_time()
  defp milliseconds(count), do: System.convert_time_unit(count, :millisecond, :native)

  defp log(%{log: nil}, _key, _what), do: :ok

  defp log(%{log: level}, key, what) do
    Logger.log(
      level,
      "Emily.Compiler: #{inspect(elem(key, 0))} #{what} for #{inspect(elem(key, 1))}"
    )
  end
end
