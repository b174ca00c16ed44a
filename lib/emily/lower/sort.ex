defmodule Emily.Lower.Sort do
  @moduledoc false
  # Sorting. NaN comes last in ascending order and first in descending, as in Nx.

  import Emily.Lower.Types
  import Emily.Expr, only: [scalar: 2, share: 2, tuple: 1]

  def names, do: [:sort, :argsort, :top_k]

  def lower(:sort, _out, [%{shape: {}} = tensor, _opts]), do: value(tensor)

  def lower(:sort, _out, [tensor, opts]),
    do: {:sort, value(tensor), opts[:axis], opts[:direction] == :desc}

  def lower(:argsort, %{type: type}, [%{shape: {}}, _opts]), do: scalar(0, dtype(type))

  def lower(:argsort, %{type: type}, [tensor, opts]) do
    order = {:argsort, value(tensor), opts[:axis], opts[:direction] == :desc}
    {:astype, order, dtype(type)}
  end

  def lower(:top_k, {_values, %{type: type}}, [tensor, opts]) do
    share(value(tensor), fn x ->
      share({:top_k, x, opts[:k]}, fn places ->
        tuple([{:take_along_axis, x, places, -1}, {:astype, places, dtype(type)}])
      end)
    end)
  end
end
