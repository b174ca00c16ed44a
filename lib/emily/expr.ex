defmodule Emily.Expr do
  @moduledoc """
  Expressions: what a lowering answers and `Emily.Native.run/2` turns into MLX's graph.

  An expression is an array's reference, a number as `{:full, shape, number, dtype}`, or a nested
  tuple `{operation, argument, ...}`. An expression that is used twice is named once with `share/2`;
  one that gives several arrays is made with `tuple/1`, or taken apart with `elem/2`.
  """

  import Kernel, except: [elem: 2]

  @type t :: reference | tuple

  @doc """
  Names `expr` and gives its name to `fun`, whose answer may use it many times.

  References and names need no name of their own.
  """
  @spec share(t, (t -> t)) :: t
  def share({:var, _} = name, fun), do: fun.(name)

  def share(expr, fun) when is_tuple(expr) do
    id = :erlang.unique_integer()
    {:let, id, expr, fun.({:var, id})}
  end

  def share(reference, fun), do: fun.(reference)

  @doc "A number as an array without axes."
  @spec scalar(number | atom | Complex.t(), atom) :: t
  def scalar(number, dtype), do: full([], number, dtype)

  @doc "An array filled with one number."
  @spec full([non_neg_integer], number | atom | Complex.t(), atom) :: t
  def full(shape, %{re: re, im: im}, dtype), do: {:full, shape, {:complex, re, im}, dtype}
  def full(shape, number, dtype), do: {:full, shape, number, dtype}

  @doc "Several results of one lowering."
  @spec tuple([t]) :: t
  def tuple(exprs), do: {:tuple, exprs}

  @doc "The result number `index`, counted from 0, of an operation that has several."
  @spec elem(t, non_neg_integer) :: t
  def elem(expr, index), do: {:elem, index, expr}
end
