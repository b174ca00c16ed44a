defmodule SettledMemory do
  @moduledoc false
  # MLX's figures without what is about to be given back. They are one for the whole system, so that a test that takes
  # them runs alone.

  alias Emily.Native

  @doc "Bytes in arrays once all garbage is gone and nothing more goes."
  def active(before \\ nil, tries \\ 500) do
    # A process that lives on may hold garbage of other tests, which any collection of its own would free.
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)

    # Destructors may run on the worker of a stream, whose thread lets go of an operation's arrays behind it.
    compute_a_number()
    :erlang.garbage_collect()
    Native.clear_cache()
    active = Native.memory().active

    cond do
      active == before -> active
      tries == 0 -> raise "memory does not settle: #{before}, then #{active} bytes"
      true -> Process.sleep(1) && active(active, tries - 1)
    end
  end

  defp compute_a_number,
    do: [{:exp, {:full, [], 0.0, :f32}}] |> Native.run() |> hd() |> Native.item()

  @doc "What `fun` gives, and how many bytes more than before there were at once meanwhile."
  def peak(fun) do
    before = active()
    Native.reset_peak_memory()
    result = fun.()
    {result, Native.memory().peak - before}
  end
end
