defmodule Emily.Lower.Sort do
  @moduledoc false
  # Sorting. Descending order is the reverse of ascending order: NaN comes first, as in Nx.

  import Emily.Lower.Types
  import Emily.Expr, only: [scalar: 2]

  def names, do: [:sort, :argsort]

  def lower(:sort, _out, [%{shape: {}} = tensor, _opts]), do: value(tensor)

  def lower(:sort, _out, [tensor, opts]) do
    axis = opts[:axis]
    sorted = {:sort, value(tensor), axis}
    if opts[:direction] == :desc, do: {:flip, sorted, [axis]}, else: sorted
  end

  def lower(:argsort, %{type: type}, [%{shape: {}}, _opts]), do: scalar(0, dtype(type))

  # Equals keep their order in both directions, so the input is reversed as well as the result.
  def lower(:argsort, %{type: type}, [tensor, opts]) do
    axis = opts[:axis]
    x = value(tensor)

    order =
      if opts[:direction] == :desc do
        greatest = scalar(elem(tensor.shape, axis) - 1, :u32)
        {:subtract, greatest, {:flip, {:argsort, {:flip, x, [axis]}, axis}, [axis]}}
      else
        {:argsort, x, axis}
      end

    {:astype, order, dtype(type)}
  end
end
