defmodule Emily.Native.Garbage do
  @moduledoc false
  # The garbage of a process that holds arrays: the BEAM sees a small reference where MLX holds megabytes.

  alias Emily.Native.Nif

  # Arrays take as much as this before their process is asked for its garbage.
  @unasked 1_048_576

  # The BEAM would let thousands of dropped arrays pile up before it collects them; fresh memory for the
  # next is slow besides. A young collection is cheap; a full one takes time for each word, so a large heap
  # is allowed more.
  @doc "Collects this process's garbage where its arrays have grown."
  @spec collect() :: :ok
  def collect do
    cond do
      not Nif.has_grown(:young, @unasked) ->
        :ok

      Nif.has_grown(:full, @unasked + 16 * heap_bytes()) ->
        :erlang.garbage_collect()
        Nif.settle(:full)

      true ->
        :erlang.garbage_collect(self(), type: :minor)
        Nif.settle(:young)
    end
  end

  defp heap_bytes do
    {:total_heap_size, words} = Process.info(self(), :total_heap_size)
    words * :erlang.system_info(:wordsize)
  end

  # Arrays that this process has dropped may be what memory lacks: then they are freed, and the work done again.
  @doc "What `work` answers, which is done once more where memory lacked what this process's garbage holds."
  def without(work) do
    work.()
  rescue
    error in Emily.Error ->
      case error.message do
        "[malloc]" <> _ ->
          :erlang.garbage_collect()
          work.()

        _ ->
          reraise error, __STACKTRACE__
      end
  end
end
