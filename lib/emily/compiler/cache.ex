defmodule Emily.Compiler.Cache do
  @moduledoc """
  The programs that `Emily.Compiler` keeps for `Nx.Defn.jit/2`.

  A function called again with arguments of the same shapes, types and names finds its program here, if it
  is the same function: closures are when they close over the same values. The cache holds up to
  #{256} programs, with the tensors that their functions close over, and forgets those that were not
  used for the longest time. A function that closes over new tensors each time is compiled each time:
  pass them as arguments, or say `cache: false`.

      iex> Emily.Compiler.Cache.clear()
      iex> double = Nx.Defn.jit(&Nx.multiply(&1, 2), compiler: Emily.Compiler)
      iex> for n <- 1..3, do: double.(n)
      iex> %{programs: 1, hits: hits, misses: misses} = Emily.Compiler.Cache.info()
      iex> {hits >= 2, misses >= 1}
      {true, true}
  """

  use GenServer

  require Logger

  @capacity 256
  @counters {__MODULE__, :counters}
  @hits 1
  @misses 2

  @doc false
  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  # The process does no more than own the table.
  @impl true
  def init([]) do
    :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    :persistent_term.put(@counters, :counters.new(2, [:write_concurrency]))
    {:ok, nil}
  end

  @doc """
  How many programs there are, how many calls have found theirs since the VM started, and how many have
  not.
  """
  @spec info() :: %{
          programs: non_neg_integer,
          hits: non_neg_integer,
          misses: non_neg_integer,
          capacity: pos_integer
        }
  def info do
    counters = :persistent_term.get(@counters)

    %{
      programs: :ets.info(__MODULE__, :size),
      hits: :counters.get(counters, @hits),
      misses: :counters.get(counters, @misses),
      capacity: @capacity
    }
  end

  @doc "Forgets all programs. Those that are still referred to go on working."
  @spec clear() :: :ok
  def clear do
    :ets.delete_all_objects(__MODULE__)
    :ok
  end

  @doc false
  # The program under `key`, by `compile` where there is none.
  def fetch(_key, %{cache: false}, compile), do: compile.()

  def fetch(key, options, compile) do
    case :ets.lookup(__MODULE__, key) do
      [{^key, executable, _used}] ->
        count(@hits)
        log(options, key, "found")
        :ets.update_element(__MODULE__, key, {3, now()})
        executable

      [] ->
        count(@misses)
        log(options, key, "compiled")
        executable = compile.()
        :ets.insert(__MODULE__, {key, executable, now()})
        forget(:ets.info(__MODULE__, :size) - @capacity)
        executable
    end
  end

  # By the time of use alone: a key holds what its function closes over, which may be large to copy.
  defp forget(count) when count > 0 do
    used = :ets.select(__MODULE__, [{{:_, :_, :"$1"}, [], [:"$1"]}])
    last = used |> Enum.sort() |> Enum.at(count - 1)
    :ets.select_delete(__MODULE__, [{{:_, :_, :"$1"}, [{:"=<", :"$1", last}], [true]}])
  end

  defp forget(_count), do: :ok

  defp count(index), do: :counters.add(:persistent_term.get(@counters), index, 1)
  defp now, do: :erlang.monotonic_time()

  defp log(%{log: nil}, _key, _what), do: :ok

  defp log(%{log: level}, key, what) do
    Logger.log(
      level,
      "Emily.Compiler: #{inspect(elem(key, 0))} #{what} for #{inspect(elem(key, 1))}"
    )
  end
end
