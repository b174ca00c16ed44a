defmodule Attack.Cases do
  @moduledoc false
  # Cases by their numbers: a case is drawn from the seed and its number alone, so that any of them can be run again.

  @doc "Made once for each child VM; what `run/2` and `describe/2` get."
  @callback prepare(seed :: integer(), folder :: Path.t()) :: state :: term()

  @doc """
  Runs a case. A fault has a key, which says what kind of fault it is (cases with the same key have one cause, as far
  as that is known), and a text.
  """
  @callback run(state :: term(), number :: non_neg_integer()) ::
              :ok | {:fault, key :: term(), text :: String.t()}

  @doc "A case as text, without running it."
  @callback describe(state :: term(), number :: non_neg_integer()) :: String.t()

  @doc "The generator of random numbers at the state that belongs to a case."
  # The generator takes the seed and the number for one, so that the next seed would have the cases of this one again.
  def seed(seed, number),
    do: :rand.seed(:exsss, {:erlang.phash2({seed, number}, 2 ** 32), number, 18})
end
