defmodule Emily.GGUF.Apart do
  @moduledoc false
  # Work in a process of its own, beside the caller's, whose garbage goes with it. It answers twice: early on, with what the
  # caller can go on with, and at its end.

  @doc "Starts `early`, which gives its answer and what `late` takes, and then `late`."
  def start(early, late) do
    caller = self()
    ref = make_ref()

    {pid, monitor} =
      spawn_monitor(fn ->
        try do
          {answer, rest} = early.()
          send(caller, {ref, answer})
          late.(rest)
        rescue
          error -> exit({ref, :raised, error, __STACKTRACE__})
        else
          answer -> exit({ref, :answered, answer})
        end
      end)

    %{ref: ref, pid: pid, monitor: monitor}
  end

  @doc "The early answer; raises what was raised before it."
  def early(%{ref: ref, monitor: monitor} = apart) do
    receive do
      {^ref, answer} -> answer
      {:DOWN, ^monitor, :process, _pid, reason} -> ended(apart, reason)
    end
  end

  @doc "The late answer; raises what was raised before it."
  def late(%{monitor: monitor} = apart) do
    receive do
      {:DOWN, ^monitor, :process, _pid, reason} -> ended(apart, reason)
    end
  end

  defp ended(%{ref: ref}, {ref, :answered, answer}), do: answer
  defp ended(%{ref: ref}, {ref, :raised, error, trace}), do: reraise(error, trace)
  defp ended(_apart, reason), do: exit(reason)

  @doc "Ends what nobody waits for any more."
  def stop(%{pid: pid, monitor: monitor, ref: ref}) do
    Process.exit(pid, :kill)
    Process.demonitor(monitor, [:flush])

    receive do
      {^ref, _answer} -> :ok
    after
      0 -> :ok
    end
  end
end
