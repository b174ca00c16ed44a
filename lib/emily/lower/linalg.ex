defmodule Emily.Lower.LinAlg do
  @moduledoc false
  # Factorisations and systems, which MLX computes with LAPACK, in f32 or f64. Complex matrices take
  # Nx's own composition where Nx has one.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]
  alias Emily.Expr

  def names do
    [:cholesky, :qr, :svd, :eigh, :lu, :solve, :determinant, :triangular_solve]
  end

  # LAPACK stops at a pivot that is not positive and leaves the rest as it was: all of the factor is
  # NaN then. After the last pivot nothing is left, so that one may be zero.
  def lower(:cholesky, %{type: {kind, _} = type}, [tensor]) when kind != :c do
    with_wide(type, fn wide ->
      share({:cholesky, cast(tensor, wide), false}, fn factor ->
        {size, _} = matrix_shape(tensor)
        zero = scalar(0, dtype(wide))
        is_last = {:equal, {:arange, 0, size, 1, :s32}, scalar(size - 1, :s32)}

        share({:diagonal, factor, 0, -2, -1}, fn pivots ->
          is_zero = {:logical_and, is_last, {:equal, pivots, zero}}
          valid = {:all, {:logical_or, is_zero, {:greater, pivots, zero}}, [-1], true}
          {:where, {:expand_dims, valid, [-1]}, factor, scalar(:nan, dtype(wide))}
        end)
      end)
    end)
  end

  def lower(:qr, {%{type: {kind, _} = type}, _}, [tensor, opts]) when kind != :c do
    {rows, columns} = matrix_shape(tensor)
    wide = accumulator(type)
    zero = scalar(0, dtype(wide))
    x = cast(tensor, wide)
    complete? = opts[:mode] == :complete and rows > columns

    share({:qr, if(complete?, do: with_identity(x, tensor, wide), else: x)}, fn qr ->
      r = Expr.elem(qr, 1)
      r = if complete?, do: columns(r, tensor, rows, columns), else: r

      # Adding zero makes the zeros positive.
      Expr.tuple(for x <- [Expr.elem(qr, 0), r], do: convert({:add, x, zero}, wide, type))
    end)
  end

  def lower(:svd, {%{type: {kind, _} = type}, _, _}, [tensor, opts]) when kind != :c do
    {rows, columns} = matrix_shape(tensor)
    wide = accumulator(type)
    x = cast(tensor, wide)

    results = fn [u, s, vt] ->
      exprs = [u, significant(s, max(rows, columns), wide), vt]
      Expr.tuple(Enum.map(exprs, &convert({:add, &1, scalar(0, dtype(wide))}, wide, type)))
    end

    cond do
      rows == columns or opts[:full_matrices?] != false ->
        share({:svd, x, true}, fn svd -> results.(for at <- 0..2, do: Expr.elem(svd, at)) end)

      # MLX makes the full factors only: a QR factorisation first leaves a small square matrix.
      rows > columns ->
        thin(x, fn u, s, vt -> results.([u, s, vt]) end)

      true ->
        thin(swap(x, tensor), fn u, s, vt ->
          results.([swap(vt, tensor), s, swap(u, tensor)])
        end)
    end
  end

  # LAPACK has the least eigenvalue first, Nx the one furthest from zero.
  def lower(:eigh, {%{type: {kind, _} = type}, vectors}, [tensor, _opts]) when kind != :c do
    wide = accumulator(type)
    dims = Tuple.to_list(vectors.shape)

    share({:eigh, cast(tensor, wide), false}, fn eigh ->
      values = Expr.elem(eigh, 0)

      share({:argsort, {:negative, {:abs, values}}, -1}, fn order ->
        along = {:broadcast_to, {:expand_dims, order, [-2]}, dims}
        values = {:take_along_axis, values, order, -1}
        vectors = {:take_along_axis, Expr.elem(eigh, 1), along, -1}
        Expr.tuple([convert(values, wide, type), convert(vectors, wide, type)])
      end)
    end)
  end

  def lower(:lu, {%{type: p_type}, %{type: {kind, _} = type}, _}, [tensor, _opts])
      when kind != :c do
    wide = accumulator(type)
    {size, _} = matrix_shape(tensor)

    share({:lu, cast(tensor, wide)}, fn lu ->
      rows = {:expand_dims, Expr.elem(lu, 0), [-1]}
      permutation = {:astype, {:equal, rows, {:arange, 0, size, 1, :u32}}, dtype(p_type)}
      factors = for at <- 1..2, do: convert(Expr.elem(lu, at), wide, type)
      Expr.tuple([permutation | factors])
    end)
  end

  def lower(:solve, %{type: {kind, _} = type} = out, [a, b]) when kind != :c do
    with_wide(type, fn wide ->
      {b, dims} = as_matrix(a, b, wide)
      _ = dims
      {:reshape, {:solve, cast(a, wide), b}, Tuple.to_list(out.shape)}
    end)
  end

  # Small determinants of integers are exact when they are written out, as Nx does.
  def lower(:determinant, %{type: type}, [%{shape: shape} = tensor])
      when :erlang.element(tuple_size(shape), shape) in [2, 3] do
    with_wide(type, fn wide -> written_out(cast(tensor, wide), Tuple.to_list(shape)) end)
  end

  def lower(:determinant, %{type: {kind, _} = type}, [tensor]) when kind != :c do
    {size, _} = matrix_shape(tensor)

    # MLX's own determinant underflows. Every row that LAPACK swapped changes the sign.
    with_wide(type, fn wide ->
      share({:lu_factor, cast(tensor, wide)}, fn lu ->
        dtype = dtype(wide)
        in_place = {:equal, Expr.elem(lu, 1), {:arange, 0, size, 1, :u32}}
        signs = {:where, in_place, scalar(1, dtype), scalar(-1, dtype)}
        pivots = {:diagonal, Expr.elem(lu, 0), 0, -2, -1}
        {:prod, {:multiply, pivots, signs}, [-1], false}
      end)
    end)
  end

  def lower(:triangular_solve, %{type: {kind, _} = type} = out, [a, b, opts]) when kind != :c do
    lower? = opts[:lower] != false
    left? = opts[:left_side] != false
    transposed? = opts[:transform_a] == :transpose
    vector? = tuple_size(b.shape) < tuple_size(a.shape)

    with_wide(type, fn wide ->
      {b_matrix, _} = as_matrix(a, b, wide)
      triangle = {if(lower?, do: :tril, else: :triu), cast(a, wide), 0}

      # x a = b is a' x' = b'.
      flip_a? = transposed? == left?
      triangle = if flip_a?, do: swap(triangle, a), else: triangle
      b_matrix = if left? or vector?, do: b_matrix, else: swap(b_matrix, a)
      solved = {:solve_triangular, triangle, b_matrix, lower? == flip_a?}
      solved = if left? or vector?, do: solved, else: swap(solved, a)
      {:reshape, solved, Tuple.to_list(out.shape)}
    end)
  end

  def lower(:triangular_solve, _out, _args), do: :fallback
  def lower(_name, _out, _args), do: :default

  defp with_wide(type, fun) do
    wide = accumulator(type)
    convert(fun.(wide), wide, type)
  end

  defp matrix_shape(%{shape: shape}) do
    rank = tuple_size(shape)
    {elem(shape, rank - 2), elem(shape, rank - 1)}
  end

  # The right-hand side with as many axes as the matrix, of one column if it is a vector.
  defp as_matrix(a, b, type) do
    dims = Tuple.to_list(b.shape)
    dims = if tuple_size(b.shape) < tuple_size(a.shape), do: dims ++ [1], else: dims
    {{:reshape, cast(b, type), dims}, dims}
  end

  # A singular value below the rounding errors of the greatest is zero, for what is known: its
  # reciprocal must not decide a pseudo-inverse.
  defp significant(s, size, type) do
    epsilon = if type == {:f, 64}, do: 2.220446049250313e-16, else: 1.1920929e-7

    share(s, fn s ->
      limit = {:multiply, {:max, s, [-1], true}, scalar(size * epsilon, dtype(type))}
      {:where, {:greater, s, limit}, s, scalar(0, dtype(type))}
    end)
  end

  # MLX makes the reduced factors only. A matrix with the identity beside it is wide, so that its
  # reduced factors are the complete ones of the matrix.
  defp with_identity(x, tensor, type) do
    {rows, _} = matrix_shape(tensor)
    identity = {:eye, rows, rows, 0, dtype(type)}
    identity = {:broadcast_to, identity, batch(tensor) ++ [rows, rows]}
    {:concatenate, [x, identity], -1}
  end

  defp columns(x, tensor, rows, columns) do
    batch = batch(tensor)
    starts = Enum.map(batch, fn _ -> 0 end) ++ [0, 0]
    {:slice, x, starts, batch ++ [rows, columns], Enum.map(starts, fn _ -> 1 end)}
  end

  defp batch(%{shape: shape}), do: shape |> Tuple.to_list() |> Enum.drop(-2)

  defp written_out(x, dims) do
    {batch, [size, size]} = Enum.split(dims, -2)
    zeros = Enum.map(batch, fn _ -> 0 end)
    ones = Enum.map(dims, fn _ -> 1 end)

    share(x, fn x ->
      at = fn row, column ->
        column = rem(column, size)
        stops = batch ++ [row + 1, column + 1]
        {:reshape, {:slice, x, zeros ++ [row, column], stops, ones}, batch}
      end

      # Sarrus: the diagonals to the right count, those to the left are taken off.
      diagonal = fn start, step ->
        factors = for row <- 0..(size - 1), do: at.(row, start + step * row)
        Enum.reduce(factors, &{:multiply, &2, &1})
      end

      count = if size == 2, do: 1, else: 3
      [first | rest] = for start <- 0..(count - 1), do: diagonal.(start, 1)
      sum = Enum.reduce(rest, first, &{:add, &2, &1})

      Enum.reduce(0..(count - 1), sum, fn start, sum ->
        {:subtract, sum, diagonal.(size - 1 - start + size, size - 1)}
      end)
    end)
  end

  defp swap(x, %{shape: shape}) do
    rank = tuple_size(shape)
    {:transpose, x, Enum.to_list(0..(rank - 3)//1) ++ [rank - 1, rank - 2]}
  end

  defp thin(x, fun) do
    share({:qr, x}, fn qr ->
      share({:svd, Expr.elem(qr, 1), true}, fn svd ->
        u = {:matmul, Expr.elem(qr, 0), Expr.elem(svd, 0)}
        fun.(u, Expr.elem(svd, 1), Expr.elem(svd, 2))
      end)
    end)
  end
end
