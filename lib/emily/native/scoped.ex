defmodule Emily.Native.Scoped do
  @moduledoc false
  # What holds for the calling process as long as a function runs.

  @doc "What `fun` answers, with `value` under `key` in the process's dictionary, and then what was there before."
  @spec set(term(), term(), (-> result)) :: result when result: term()
  def set(key, value, fun) do
    previous = Process.put(key, value)

    try do
      fun.()
    after
      if previous == nil, do: Process.delete(key), else: Process.put(key, previous)
    end
  end
end
