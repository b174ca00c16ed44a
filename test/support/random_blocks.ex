defmodule Emily.RandomPrograms.Blocks do
  @moduledoc false
  # Conditions and loops of random programs.

  import Nx.Defn

  @doc "What one of two functions makes of `x`; which, a sum of `by` says."
  defn choice(by, x, yes, no) do
    # An order of terms decides the sign of a sum where they are large and cancel each other.
    if Nx.reduce_max(Nx.real(by)) > 0.5, do: yes.(x), else: no.(x)
  end

  @doc "What comes of `x` by a function, some times."
  defn loop(x, fun, times) do
    {x, _, _} =
      while {x, i = 0, times}, i < times do
        {fun.(x), i + 1, times}
      end

    x
  end
end
