defmodule Emily.Lower.LinAlg do
  @moduledoc false
  # Factorisations and systems, which MLX computes with LAPACK, in f32 or f64. A complex system and a
  # complex Cholesky factor are those of a real matrix, twice as large; other complex factorisations
  # take Nx's own composition.
  #
  # Where the signs of vectors are free they are those that Nx's own algorithms find by a rule: a
  # reflection makes the diagonal of R positive, and a Jacobi rotation keeps the greatest element of an
  # eigenvector positive. Nx's gradients come from these algorithms.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]
  alias Emily.Expr
  alias Emily.Lower.{Complex, LinAlg.Factor}

  # LAPACK in f64, rounded once, is what Nx.BinaryBackend's f64 arithmetic comes close to. It takes about
  # twice as long as in f32, which up to this size is less than the call around it takes.
  @small 64

  def names do
    [:cholesky, :qr, :svd, :eigh, :lu, :solve, :determinant, :triangular_solve]
  end

  # LAPACK stops at a pivot that is not positive and leaves the rest as it was: all of the factor is
  # NaN then, as it is where a pivot is infinite. After the last pivot nothing is left, so that one may be zero.
  def lower(:cholesky, %{type: {:c, 64}}, [tensor]) do
    {size, _} = matrix_shape(tensor)
    batch = batch(tensor)
    zeros = Enum.map(batch, fn _ -> 0 end)

    # The factor has the same form as what it is a factor of: its columns of even number suffice.
    wide = width({:f, 32}, [tensor])
    matrix = Complex.real_matrix(cast(tensor, {:c, 64}), batch ++ [size, size])

    share(convert(matrix, {:f, 32}, wide), fn x ->
      factor = convert(cholesky(x, 2 * size, wide), wide, {:f, 32})
      split = {:reshape, factor, batch ++ [size, 2, size, 2]}
      starts = zeros ++ [0, 0, 0, 0]
      stops = batch ++ [size, 2, size, 1]
      half = {:slice, split, starts, stops, Enum.map(starts, fn _ -> 1 end)}
      Complex.from_rows(half, batch ++ [size, size])
    end)
  end

  def lower(:cholesky, %{type: type}, [tensor]) do
    {size, _} = matrix_shape(tensor)

    if Factor.small?(type, size) do
      factor = Factor.cholesky(cast(tensor, type), batch(tensor), size, width(type, [tensor]))
      where_positive(factor, size, type)
    else
      with_wide(type, [tensor], fn wide -> cholesky(cast(tensor, wide), size, wide) end)
    end
  end

  def lower(:qr, {%{type: {kind, _} = type}, _}, [tensor, opts]) when kind != :c do
    {rows, columns} = matrix_shape(tensor)
    wide = width(type, [tensor])
    zero = scalar(0, dtype(wide))
    complete? = opts[:mode] == :complete and rows > columns

    share(cast(tensor, wide), fn x ->
      share({:qr, if(complete?, do: with_identity(x, tensor, wide), else: x)}, fn qr ->
        r = Expr.elem(qr, 1)
        r = if complete?, do: columns(r, tensor, rows, columns), else: r

        share(r, fn r ->
          share(reflected(x, r, tensor, complete?, wide), fn signs ->
            q = {:multiply, Expr.elem(qr, 0), {:expand_dims, signs, [-2]}}
            r = {:multiply, r, {:expand_dims, signs, [-1]}}

            # Adding zero makes the zeros positive.
            Expr.tuple(for x <- [q, r], do: convert({:add, x, zero}, wide, type))
          end)
        end)
      end)
    end)
  end

  def lower(:svd, {%{type: {kind, _} = type}, _, _}, [tensor, opts]) when kind != :c do
    {rows, columns} = matrix_shape(tensor)

    # Of an integer row Nx's own algorithm, whose types a block has within a function, gives a factor of integers.
    type = Nx.Type.to_floating(type)
    wide = width(type, [tensor])
    x = cast(tensor, wide)

    full? = rows == columns or opts[:full_matrices?] != false
    zero = scalar(0, dtype(wide))

    results = fn [u, s, vt] ->
      s = significant(s, max(rows, columns), wide, accumulator(type))

      turned(u, vt, tensor, full?, wide, fn u, vt ->
        Expr.tuple(for x <- [u, s, vt], do: convert({:add, x, zero}, wide, type))
      end)
    end

    cond do
      full? ->
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
    wide = width(type, [tensor])
    dims = Tuple.to_list(vectors.shape)

    share({:eigh, cast(tensor, wide), false}, fn eigh ->
      values = Expr.elem(eigh, 0)

      share({:argsort, {:negative, {:abs, values}}, -1, false}, fn order ->
        along = {:broadcast_to, {:expand_dims, order, [-2]}, dims}
        values = {:take_along_axis, values, order, -1}
        vectors = {:take_along_axis, Expr.elem(eigh, 1), along, -1}

        share(vectors, fn vectors ->
          vectors = {:multiply, vectors, greatest_signs(vectors, -2, wide)}
          Expr.tuple([convert(values, wide, type), convert(vectors, wide, type)])
        end)
      end)
    end)
  end

  def lower(:lu, {%{type: p_type}, %{type: {kind, _} = type}, _}, [tensor, _opts])
      when kind != :c do
    {size, _} = matrix_shape(tensor)
    each = {:arange, 0, size, 1, :u32}

    if Factor.small?(type, size) do
      Factor.lu(cast(tensor, type), batch(tensor), size, fn order, factors, _signs ->
        row = {:expand_dims, order, [-2]}
        permutation = {:astype, {:equal, {:expand_dims, each, [-1]}, row}, dtype(p_type)}
        Expr.tuple([permutation, lower_factor(factors, size), {:triu, factors, 0}])
      end)
    else
      wide = width(type, [tensor])

      share({:lu, cast(tensor, wide)}, fn lu ->
        rows = {:expand_dims, Expr.elem(lu, 0), [-1]}
        permutation = {:astype, {:equal, rows, each}, dtype(p_type)}
        factors = for at <- 1..2, do: convert(Expr.elem(lu, at), wide, type)
        Expr.tuple([permutation | factors])
      end)
    end
  end

  def lower(:solve, %{type: type} = out, [a, b]) do
    {size, _} = matrix_shape(a)
    wide = width(type, [a, b])

    if Factor.small?(type, size) do
      {b, dims} = as_matrix(a, b, type)

      Factor.lu(cast(a, type), batch(a), size, fn order, factors, _signs ->
        along = {:broadcast_to, {:expand_dims, order, [-1]}, dims}
        b = {:take_along_axis, b, along, -2}
        b = half_solved(lower_factor(factors, size), b, false, wide)
        {:reshape, half_solved(factors, b, true, wide), dims(out)}
      end)
    else
      {b, dims} = as_matrix(a, b, wide)

      solved =
        {:reshape, solve(cast(a, wide), dims(a), b, dims, wide, width({:f, 32}, [a])), dims(out)}

      convert(solved, wide, type)
    end
  end

  # Small determinants of integers are exact when they are written out, as Nx does.
  def lower(:determinant, %{type: type}, [%{shape: shape} = tensor])
      when :erlang.element(tuple_size(shape), shape) in [2, 3] do
    wide = accumulator(type)
    convert(written_out(cast(tensor, wide), dims(tensor)), wide, type)
  end

  def lower(:determinant, %{type: {kind, _} = type}, [tensor]) when kind != :c do
    {size, _} = matrix_shape(tensor)

    wide = width(type, [tensor])

    if Factor.small?(type, size) do
      Factor.lu(cast(tensor, type), batch(tensor), size, fn _order, factors, signs ->
        pivots = convert({:multiply, {:diagonal, factors, 0, -2, -1}, signs}, type, wide)
        convert({:prod, pivots, [-1], false}, wide, type)
      end)
    else
      convert({:det, cast(tensor, wide)}, wide, type)
    end
  end

  # A matrix of complex numbers is conjugated, one of real numbers is its own conjugate.
  def lower(:triangular_solve, %{type: type} = out, [a, b, opts]) do
    lower? = opts[:lower] != false
    left? = opts[:left_side] != false
    transposed? = opts[:transform_a] == :transpose
    vector? = tuple_size(b.shape) < tuple_size(a.shape)

    with_wide(type, [a, b], fn wide ->
      {b_matrix, dims} = as_matrix(a, b, wide)
      x = cast(a, wide)
      conjugated? = opts[:transform_a] == :conjugate and wide == {:c, 64}
      x = if conjugated?, do: {:conjugate, x}, else: x

      # x a = b is a' x' = b'.
      flip_a? = transposed? == left?
      flip_b? = not (left? or vector?)
      triangle = if flip_a?, do: swap(x, a), else: x
      b_matrix = if flip_b?, do: swap(b_matrix, a), else: b_matrix
      dims = if flip_b?, do: swapped(dims), else: dims
      upper? = lower? == flip_a?
      real = width({:f, 32}, [a])
      solved = solve_triangular(triangle, dims(a), b_matrix, dims, upper?, wide, real)
      {:reshape, if(flip_b?, do: swap(solved, a), else: solved), dims(out)}
    end)
  end

  def lower(_name, _out, _args), do: :default

  defp cholesky(x, size, type) do
    where_positive({:cholesky, x, false}, size, type)
  end

  defp where_positive(factor, size, type) do
    share(factor, fn factor ->
      zero = scalar(0, dtype(type))
      is_last = {:equal, {:arange, 0, size, 1, :s32}, scalar(size - 1, :s32)}

      share({:diagonal, factor, 0, -2, -1}, fn pivots ->
        is_zero = {:logical_and, is_last, {:equal, pivots, zero}}
        finite = {:less, pivots, scalar(:infinity, dtype(type))}
        is_positive = {:logical_and, finite, {:greater, pivots, zero}}
        valid = {:all, {:logical_or, is_zero, is_positive}, [-1], true}
        {:where, {:expand_dims, valid, [-1]}, factor, scalar(:nan, dtype(type))}
      end)
    end)
  end

  defp lower_factor(factors, size) do
    {:add, {:tril, factors, -1}, {:eye, size, size, 0, :f32}}
  end

  # Rounded to f32 in between, as Nx is.
  defp half_solved(triangle, b, upper?, wide) do
    b = convert(b, {:f, 32}, wide)
    convert({:solve_triangular, convert(triangle, {:f, 32}, wide), b, upper?}, wide, {:f, 32})
  end

  defp solve(a, a_dims, b, dims, {:c, 64}, real) do
    rows = convert(Complex.to_rows(b, dims), {:f, 32}, real)
    solved = {:solve, convert(Complex.real_matrix(a, a_dims), {:f, 32}, real), rows}
    Complex.from_rows(convert(solved, real, {:f, 32}), dims)
  end

  defp solve(a, _a_dims, b, _dims, _type, _real), do: {:solve, a, b}

  # With ones on its diagonal a complex triangle stays a triangle of real numbers. Where the diagonal
  # has a zero, it keeps it, for LAPACK to refuse.
  defp solve_triangular(a, a_dims, b, dims, upper?, {:c, 64}, real) do
    share(a, fn a ->
      diagonal = {:expand_dims, {:diagonal, a, 0, -2, -1}, [-1]}

      share(diagonal, fn diagonal ->
        is_zero = {:equal, diagonal, scalar(0, :c64)}

        share({:where, is_zero, scalar(1, :c64), diagonal}, fn scale ->
          unit = Complex.real_matrix({:divide, a, scale}, a_dims)
          right = convert(Complex.to_rows({:divide, b, scale}, dims), {:f, 32}, real)
          solved = {:solve_triangular, convert(unit, {:f, 32}, real), right, upper?}
          Complex.from_rows(convert(solved, real, {:f, 32}), dims)
        end)
      end)
    end)
  end

  defp solve_triangular(a, _a_dims, b, _dims, upper?, _type, _real) do
    {:solve_triangular, a, b, upper?}
  end

  # The type in which LAPACK computes. A GPU's stream holds no f64, not even for the CPU to read.
  defp width({kind, bits} = type, tensors) when kind in [:f, :bf] and bits < 64 do
    small? = Enum.all?(tensors, &(&1 |> dims() |> Enum.take(-2) |> Enum.max() <= @small))
    on_cpu? = Enum.all?(tensors, &(&1.data.device == :cpu))
    if small? and on_cpu?, do: {:f, 64}, else: accumulator(type)
  end

  defp width(type, _tensors), do: type

  defp with_wide(type, tensors, fun) do
    wide = width(type, tensors)
    convert(fun.(wide), wide, type)
  end

  defp matrix_shape(%{shape: shape}) do
    rank = tuple_size(shape)
    {elem(shape, rank - 2), elem(shape, rank - 1)}
  end

  # The right-hand side with as many axes as the matrix, of one column if it is a vector.
  defp as_matrix(a, b, type) do
    dims = if tuple_size(b.shape) < tuple_size(a.shape), do: dims(b) ++ [1], else: dims(b)
    {{:reshape, cast(b, type), dims}, dims}
  end

  # A singular value below the rounding errors of the greatest is zero, for what is known: its
  # reciprocal must not decide a pseudo-inverse. What is known is known in `known`'s precision,
  # whatever type computes. NaN stays.
  defp significant(s, size, type, known) do
    epsilon = if known == {:f, 64}, do: 2.220446049250313e-16, else: 1.1920929e-7

    share(s, fn s ->
      limit = {:multiply, {:max, s, [-1], true}, scalar(size * epsilon, dtype(type))}
      {:where, {:less_equal, s, limit}, scalar(0, dtype(type)), s}
    end)
  end

  # The signs by which Q's columns and R's rows are multiplied. Nx's reflections make the diagonal
  # positive, LAPACK's give it the other sign of the element they start from; neither reflects while there
  # is nothing below the diagonal, nor in the last row. As many reflections leave the same determinant,
  # which says the sign of a last column that no reflection made.
  defp reflected(x, r, tensor, complete?, type) do
    {rows, columns} = matrix_shape(tensor)
    batch = batch(tensor)
    count = min(rows, columns)
    one = scalar(1, dtype(type))
    below = {:any, {:not_equal, {:tril, x, -1}, scalar(0, dtype(type))}, [-2], false}
    reflected = {:greater, {:cummax, {:astype, below, :s32}, -1, false}, scalar(0, :s32)}
    negative = {:less, {:diagonal, r, 0, -2, -1}, scalar(0, dtype(type))}
    turned = {:logical_and, part(reflected, batch, count), negative}

    share({:where, turned, scalar(-1, dtype(type)), one}, fn signs ->
      case {rows - columns, complete?} do
        {more, _} when more <= 0 ->
          others = part(signs, batch, count - 1)
          if count == 1, do: one_each(batch, 1, type), else: with_product(others)

        {1, true} ->
          with_product(signs)

        {more, true} ->
          {:concatenate, [signs, one_each(batch, more, type)], -1}

        _ ->
          signs
      end
    end)
  end

  defp with_product(signs), do: share(signs, &{:concatenate, [&1, {:prod, &1, [-1], true}], -1})
  defp one_each(batch, count, type), do: Expr.full(batch ++ [count], 1, dtype(type))

  defp part(x, batch, count) do
    starts = Enum.map(batch, fn _ -> 0 end) ++ [0]
    {:slice, x, starts, batch ++ [count], Enum.map(starts, fn _ -> 1 end)}
  end

  # Singular vectors with the signs that Nx takes from the eigenvectors of the smaller side. Those
  # beyond the singular values are free.
  defp turned(u, vt, tensor, full?, type, fun) do
    {rows, columns} = matrix_shape(tensor)
    batch = batch(tensor)

    extended = fn signs, more ->
      if full? and more > 0,
        do: {:concatenate, [signs, one_each(batch, more, type)], -1},
        else: signs
    end

    share(u, fn u ->
      share(vt, fn vt ->
        signs =
          if rows < columns,
            do: {:squeeze, greatest_signs(u, -2, type), [-2]},
            else: {:squeeze, greatest_signs(vt, -1, type), [-1]}

        share(signs, fn signs ->
          of_u = {:expand_dims, extended.(signs, rows - columns), [-2]}
          of_vt = {:expand_dims, extended.(signs, columns - rows), [-1]}
          fun.({:multiply, u, of_u}, {:multiply, vt, of_vt})
        end)
      end)
    end)
  end

  # The sign of the greatest element along an axis, of the first where several are as great to f32.
  defp greatest_signs(x, axis, type) do
    dtype = dtype(type)

    share(x, fn x ->
      at = {:argmax, {:abs, {:astype, x, :f32}}, axis, true}
      negative = {:less, {:take_along_axis, x, at, axis}, scalar(0, dtype)}
      {:where, negative, scalar(-1, dtype), scalar(1, dtype)}
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

  defp dims(%{shape: shape}), do: Tuple.to_list(shape)
  defp batch(tensor), do: tensor |> dims() |> Enum.drop(-2)

  defp swapped(dims) do
    {batch, [rows, columns]} = Enum.split(dims, -2)
    batch ++ [columns, rows]
  end

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
