defmodule Emily.Lower.LinAlg.Factor do
  @moduledoc false
  # Factors of matrices of a few rows, written out: the steps by which Nx.LinAlg finds them, each rounded
  # to f32 as there, so that a small example gives the numbers of Nx.BinaryBackend. They stay lazy and on
  # the tensor's device, where a call of LAPACK is computed at once.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]

  # A row takes about fifteen operations; these are the largest examples of Nx's documentation.
  @most 5

  @doc "Whether a matrix is written out."
  def small?(type, size), do: type == {:f, 32} and size <= @most

  @doc """
  The LU factors of `x`, a batch of square matrices: `fun` gets which row each row was, both factors in
  one matrix, and the signs of the steps.
  """
  def lu(x, batch, size, fun) do
    order = {:broadcast_to, {:arange, 0, size, 1, :u32}, batch ++ [size]}
    share(x, &share(order, fn order -> lu_step(0, &1, order, [], {batch, size}, fun) end))
  end

  defp lu_step(size, x, order, signs, {_batch, size}, fun) do
    fun.(order, x, {:concatenate, Enum.reverse(signs), -1})
  end

  defp lu_step(k, x, order, signs, {batch, size} = dims, fun) do
    at = fn n -> scalar(n, :u32) end
    each = {:arange, 0, size, 1, :u32}
    rows = {:expand_dims, each, [-1]}
    column = part(x, batch, {k, size}, {k, k + 1})
    pivot = {:add, {:argmax, {:abs, {:squeeze, column, [-1]}}, -1, true}, at.(k)}

    share({:astype, pivot, :u32}, fn pivot ->
      swapped = {:where, {:equal, each, pivot}, at.(k), each}

      share({:where, {:equal, each, at.(k)}, pivot, swapped}, fn swapped ->
        along = {:broadcast_to, {:expand_dims, swapped, [-1]}, batch ++ [size, size]}

        share({:take_along_axis, x, along, -2}, fn x ->
          column = part(x, batch, {0, size}, {k, k + 1})
          diagonal = part(x, batch, {k, k + 1}, {k, k + 1})

          share(diagonal, fn diagonal ->
            scales = {:logical_and, {:greater, rows, at.(k)}, not_zero(diagonal)}

            share({:where, scales, {:divide, column, diagonal}, column}, fn scaled ->
              below = {:logical_and, {:greater, rows, at.(k)}, {:greater, each, at.(k)}}
              outer = {:multiply, scaled, part(x, batch, {k, k + 1}, {0, size})}
              rest = {:where, below, {:subtract, x, outer}, x}
              sign = {:where, {:equal, pivot, at.(k)}, scalar(1, :f32), scalar(-1, :f32)}

              share({:where, {:equal, each, at.(k)}, scaled, rest}, fn x ->
                share({:take_along_axis, order, swapped, -1}, fn order ->
                  lu_step(k + 1, x, order, [sign | signs], dims, fun)
                end)
              end)
            end)
          end)
        end)
      end)
    end)
  end

  defp not_zero(x), do: {:not_equal, x, scalar(0, :f32)}

  @doc "The Cholesky factor of `x`, a batch of square matrices. Sums are computed in the type `wide`."
  def cholesky(x, batch, size, wide) do
    share(x, &cholesky_step(0, &1, [], {batch, size}, wide))
  end

  defp cholesky_step(size, _x, columns, {_batch, size}, _wide) do
    {:concatenate, Enum.reverse(columns), -1}
  end

  defp cholesky_step(k, x, columns, {batch, size} = dims, wide) do
    rows = {:arange, 0, size, 1, :u32}
    rows = {:expand_dims, rows, [-1]}
    column = part(x, batch, {0, size}, {k, k + 1})

    share(left(column, columns, k, dims, wide), fn left ->
      share({:sqrt, part(left, batch, {k, k + 1}, {0, 1})}, fn pivot ->
        below =
          {:where, {:greater, rows, scalar(k, :u32)}, {:divide, left, pivot}, scalar(0, :f32)}

        share({:where, {:equal, rows, scalar(k, :u32)}, pivot, below}, fn column ->
          cholesky_step(k + 1, x, [column | columns], dims, wide)
        end)
      end)
    end)
  end

  # What the columns found leave of the next.
  defp left(column, [], _k, _dims, _wide), do: column

  defp left(column, columns, k, {batch, _size}, wide) do
    found = {:concatenate, Enum.reverse(columns), -1}

    share(convert(found, {:f, 32}, wide), fn found ->
      products = {:multiply, found, part(found, batch, {k, k + 1}, {0, k})}
      {:subtract, column, convert({:sum, products, [-1], true}, wide, {:f, 32})}
    end)
  end

  # Rows and columns, each from the first number to before the last.
  defp part(x, batch, {top, bottom}, {left, right}) do
    zeros = Enum.map(batch, fn _ -> 0 end)

    {:slice, x, zeros ++ [top, left], batch ++ [bottom, right],
     Enum.map(zeros, &(&1 + 1)) ++ [1, 1]}
  end
end
