defmodule Attack.Draw do
  @moduledoc false
  # Choices from the process's generator of random numbers.

  def pick(list), do: Enum.at(list, :rand.uniform(length(list)) - 1)
  def integer(low, high), do: low + :rand.uniform(high - low + 1) - 1
  def chance(share), do: :rand.uniform() < share
  def flag, do: pick([true, false])
  def some(low, high, fun), do: for(_ <- 1..integer(low, high)//1, do: fun.())

  @doc "A text for a term: one that shares its parts is not written out."
  def shown(term), do: inspect(term, limit: 40, printable_limit: 200, width: 120)
end
