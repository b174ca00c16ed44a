defmodule Emily.Compiler.CodeVersion do
  @moduledoc false
  # A number for the code that the VM runs: another one as soon as a module has been loaded anew with other
  # code. What a traced function calls is not known, so programs depend on all modules.
  #
  # Modules are loaded by Erlang's code server, whose reductions count whatever it does. As long as they
  # stand, no module has changed; where they do not, this process compares the modules' checksums.

  use GenServer

  # Of the counters: the code server's reductions when the modules were compared, and the version.
  @seen 1
  @version 2

  @doc false
  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "The version of the code that runs."
  @spec current() :: integer
  def current do
    {counters, server} = :persistent_term.get(__MODULE__)

    if reductions(server) == :atomics.get(counters, @seen),
      do: :atomics.get(counters, @version),
      else: GenServer.call(__MODULE__, :compare, :infinity)
  end

  @impl true
  def init([]) do
    counters = :atomics.new(2, signed: true)
    server = Process.whereis(:code_server)
    :atomics.put(counters, @version, new_version())
    :persistent_term.put(__MODULE__, {counters, server})
    {:ok, %{counters: counters, server: server, checksums: %{}}}
  end

  @impl true
  def handle_call(:compare, _from, %{counters: counters} = state) do
    # Read first: what is loaded meanwhile shows in the next comparison.
    seen = reductions(state.server)
    {checksums, changed?} = compare(:erlang.loaded(), state.checksums, false)

    if changed? do
      :atomics.put(counters, @version, new_version())
      Emily.Compiler.Cache.clear()
    end

    :atomics.put(counters, @seen, seen)
    {:reply, :atomics.get(counters, @version), %{state | checksums: checksums}}
  end

  # A module that is new changes nothing. One that was deleted is remembered: it may come back.
  defp compare([], checksums, changed?), do: {checksums, changed?}

  defp compare([module | modules], checksums, changed?) do
    checksum = checksum(module)

    case checksums do
      %{^module => ^checksum} -> compare(modules, checksums, changed?)
      %{^module => _} when checksum == nil -> compare(modules, checksums, changed?)
      %{^module => _} -> compare(modules, Map.put(checksums, module, checksum), true)
      %{} -> compare(modules, Map.put(checksums, module, checksum), changed?)
    end
  end

  defp checksum(module) do
    :erlang.get_module_info(module, :md5)
  rescue
    # Deleted since, or of the runtime system itself.
    ArgumentError -> nil
  end

  defp reductions(server) do
    {:reductions, reductions} = :erlang.process_info(server, :reductions)
    reductions
  end

  # Never one of before, also where this process was started anew.
  defp new_version, do: :erlang.unique_integer()
end
