defmodule Emily.Native.Answer do
  @moduledoc false
  # What a stream's worker answers to a call that it has queued: the message `{tag, answer}`.

  alias Emily.Native.Garbage

  @doc "Waits for the answer. The worker always answers, so there is no time-out: a long computation is no failure."
  def await(tag) do
    receive do
      {^tag, answer} -> given(answer)
    end
  end

  @doc "What an answer gives, or raises."
  def given(:ok), do: Garbage.collect()
  def given({:ok, result}), do: with(:ok <- Garbage.collect(), do: result)
  def given({:error, :argument, message}), do: raise(ArgumentError, message)
  def given({:error, :mlx, message}), do: raise(Emily.Error, message)

  @doc "Calls once more what found the queue full, a little later: thousands of processes wait for the stream."
  def again(fun) do
    Process.sleep(1)
    fun.()
  end
end
