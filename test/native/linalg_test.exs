Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.LinalgTest do
  # Decompositions, whose factors are right up to signs and order: multiplied here, in lists, they
  # give the matrix back. Numbers that are unique stand among NumPy's.
  use NativeCase, async: true

  @tall [[2.0, -1.0], [0.5, 3.0], [-1.5, 1.0]]
  @square [[4.0, 1.0, -0.5], [1.0, 3.0, 0.25], [-0.5, 0.25, 2.0]]
  # The first pivot is the last row.
  @pivoting [[0.0, 2.0, 1.0], [1.0, 0.5, -1.0], [4.0, 1.0, 2.0]]

  for dtype <- [:f32, :f64] do
    describe "in #{dtype}" do
      @describetag dtype: dtype

      test "qr", %{dtype: dtype} do
        for rows <- [@tall, @square, transpose(@tall)] do
          [q, r] = factors({:qr, matrix(rows, dtype)})
          assert_matrix(product(q, r), rows, dtype)
          assert_matrix(product(transpose(q), q), identity(length(hd(q))), dtype)

          for {row, i} <- Enum.with_index(r),
              {x, j} <- Enum.with_index(row),
              j < i,
              do: assert(x == 0)
        end
      end

      test "svd", %{dtype: dtype} do
        for rows <- [@tall, @square, transpose(@tall)] do
          [u, s, vt] = factors({:svd, matrix(rows, dtype), true})
          assert s == Enum.sort(s, :desc)
          assert Enum.all?(s, &(&1 > 0))
          # The factors are square; the values fill the diagonal between them.
          scaled = for row <- u, do: for({x, value} <- Enum.zip(row, s), do: x * value)
          assert_matrix(product(scaled, Enum.take(vt, length(s))), rows, dtype)
          assert_matrix(product(u, transpose(u)), identity(length(rows)), dtype)
          assert_matrix(product(vt, transpose(vt)), identity(length(hd(rows))), dtype)
        end
      end

      test "eigh", %{dtype: dtype} do
        for upper <- [true, false] do
          [values, vectors] = factors({:eigh, matrix(@square, dtype), upper})
          assert values == Enum.sort(values)
          scaled = for row <- vectors, do: for({x, value} <- Enum.zip(row, values), do: x * value)
          assert_matrix(product(scaled, transpose(vectors)), @square, dtype)
        end
      end

      test "eigh reads the triangle that it is told", %{dtype: dtype} do
        half = matrix([[2.0, 100.0], [0.0, 3.0]], dtype)
        [values, _] = factors({:eigh, half, false})
        assert_near(values, [2.0, 3.0], dtype, 16)
      end

      test "lu", %{dtype: dtype} do
        for rows <- [@pivoting, @square, @tall] do
          [order, l, u] = factors({:lu, matrix(rows, dtype)})
          permuted = product(l, u)
          assert Enum.sort(order) == Enum.to_list(0..(length(rows) - 1))
          # Row i of the matrix is row order[i] of the product.
          assert_matrix(Enum.map(order, &Enum.at(permuted, &1)), rows, dtype)

          for {row, i} <- Enum.with_index(l),
              {x, j} <- Enum.with_index(row),
              j >= i,
              do: assert(x == if(i == j, do: 1, else: 0))

          for {row, i} <- Enum.with_index(u),
              {x, j} <- Enum.with_index(row),
              j < i,
              do: assert(x == 0)
        end
      end

      test "lu_factor", %{dtype: dtype} do
        [packed, pivots] = factors({:lu_factor, matrix(@pivoting, dtype)})
        # By hand: rows 0 and 2 change places, then rows 1 and 2.
        assert pivots == [2, 2, 2]

        assert_matrix(
          packed,
          [[4.0, 1.0, 2.0], [0.0, 2.0, 1.0], [0.25, 0.125, -1.625]],
          dtype
        )
      end

      test "of several matrices at once", %{dtype: dtype} do
        both = array(List.flatten([@square, @pivoting]), [2, 3, 3], dtype)
        [q, r] = Native.run([{:qr, both}], device(dtype))
        assert {Native.shape(q), Native.shape(r)} == {{2, 3, 3}, {2, 3, 3}}

        products =
          [numbers(q), numbers(r)]
          |> Enum.map(&(&1 |> Enum.chunk_every(3) |> Enum.chunk_every(3)))
          |> Enum.zip_with(fn [q, r] -> product(q, r) end)

        for {got, wanted} <- Enum.zip(products, [@square, @pivoting]),
            do: assert_matrix(got, wanted, dtype)
      end
    end
  end

  @tag :f64
  test "what follows a factorisation computes with its numbers" do
    twos = {:full, [16, 16], 2.0, :f32}
    # The first row stays, what is below it vanishes but for the quotients.
    factors =
      for i <- 0..15, j <- 0..15, do: if(i == 0, do: 2.0, else: if(j == 0, do: 1.0, else: 0.0))

    exps = Enum.map(factors, &:math.exp/1)

    for _ <- 1..300 do
      assert_near(numbers({:exp, {:elem, 0, {:lu_factor, twos}}}), exps, :f32)
    end

    one = {:full, [1, 1], 3.0, :f64}
    for _ <- 1..150, do: assert(numbers({:elem, 1, {:lu, one}}) == [1.0])
  end

  # The second of three matrices has a number that is none; the others are those that are known.
  describe "beside a matrix with a flaw" do
    test "svd and eigh are right" do
      for dtype <- [:f32, :f64], flaw <- [:nan, :infinity, :neg_infinity], at <- 0..8 do
        good = List.flatten(@square)
        x = array(Enum.concat([good, List.replace_at(good, at, flaw), good]), [3, 3, 3], dtype)

        for expression <- [{:svd, x, true}, {:svd, x, false}, {:eigh, x, false}] do
          arrays = Native.run([expression], :cpu)
          assert_values(expression, arrays, dtype)

          for array <- arrays do
            numbers = numbers(array)
            [good, bad, same] = Enum.chunk_every(numbers, div(length(numbers), 3))
            assert Enum.all?(bad, &(&1 == :nan))
            assert good == same and Enum.all?(good, &is_float/1)
          end
        end
      end
    end

    test "systems are solved" do
      for dtype <- [:f32, :f64], flaw <- [:nan, :infinity, :neg_infinity] do
        good = [[2.0, 0.0, 0.0], [1.0, 4.0, 0.0], [0.0, 1.0, 8.0]]
        # A NaN on the diagonal is what LAPACK takes for a zero.
        bad = List.replace_at(List.flatten(good), 4, flaw)
        a = array(Enum.concat([List.flatten(good), bad, List.flatten(good)]), [3, 3, 3], dtype)
        b = array(List.duplicate([2.0, 5.0, 9.0], 3) |> List.flatten(), [3, 3, 1], dtype)

        for expression <- [{:solve, a, b}, {:solve_triangular, a, b, false}] do
          [x] = Native.run([expression], :cpu)
          assert [one, _bad, other] = x |> numbers() |> Enum.chunk_every(3)
          assert_near(one, [1.0, 1.0, 1.0], dtype)
          assert one == other
        end

        [inverse] = Native.run([{:inv, a}], :cpu)
        [one, _bad, other] = inverse |> numbers() |> Enum.chunk_every(9)
        assert_near(one, [0.5, 0.0, 0.0, -0.125, 0.25, 0.0, 0.015625, -0.03125, 0.125], dtype)
        assert one == other
      end

      a = array([:nan, 0.0, 1.0, 2.0], [2, 2], :f32)
      b = array([1.0, 2.0], [2], :f32)

      for expression <- [{:solve, a, b}, {:solve_triangular, a, b, false}],
          do: assert(numbers(expression) == [:nan, :nan])
    end
  end

  # The sum of the squares of the values is that of the elements.
  defp assert_values({:svd, _, _}, arrays, dtype) do
    values =
      arrays |> Enum.at(if(length(arrays) == 3, do: 1, else: 0)) |> numbers() |> Enum.take(3)

    squares = fn list -> list |> List.flatten() |> Enum.map(&(&1 * &1)) |> Enum.sum() end
    assert_near([squares.(values)], [squares.(@square)], dtype, 64)
  end

  # The sum of the values is that of the diagonal.
  defp assert_values({:eigh, _, _}, [values, _], dtype) do
    assert_near([values |> numbers() |> Enum.take(3) |> Enum.sum()], [9.0], dtype, 64)
  end

  test "the other triangle is not looked at" do
    a = array([2.0, :nan, 1.0, 4.0], [2, 2], :f32)
    b = array([2.0, 5.0], [2], :f32)
    assert_near(numbers({:solve_triangular, a, b, false}), [1.0, 1.0], :f32)
  end

  test "no pivot is out of its matrix, whatever is in it" do
    :rand.seed(:exsss, {1, 2, 3})

    for size <- [1, 2, 3, 8, 33, 100], dtype <- [:f32, :f64], share <- [0.01, 0.2, 1.0] do
      number = fn ->
        if :rand.uniform() < share,
          do: Enum.random([:nan, :infinity, :neg_infinity]),
          else: :rand.normal()
      end

      x = array(for(_ <- 1..(size * size), do: number.()), [size, size], dtype)
      [_, pivots] = Native.run([{:lu_factor, x}], :cpu)

      assert Enum.all?(Enum.with_index(numbers(pivots)), fn {pivot, row} ->
               pivot in row..(size - 1)
             end)

      [rows | _] = Native.run([{:lu, x}], :cpu)
      assert Enum.sort(numbers(rows)) == Enum.to_list(0..(size - 1))
    end
  end

  @tag :f64
  test "det" do
    for dtype <- [:f32, :f64] do
      # By hand; the rows of the last are those of a triangle in another order.
      assert_near(numbers({:det, matrix(@pivoting, dtype)}), [-13.0], dtype, 16)

      triangle = [[0, 0, 0, 5], [0, 2, 7, 1], [3, 1, 4, 1], [0, 0, 4, 2]]
      rows = for row <- triangle, do: Enum.map(row, &(&1 * 1.0))
      assert_near(numbers({:det, matrix(rows, dtype)}), [120.0], dtype, 16)
    end
  end

  test "cholesky of what is not positive definite gives no crash" do
    assert [_, _, _, _] = numbers({:cholesky, matrix([[-1.0, 0.0], [0.0, -1.0]], :f32), false})
  end

  test "results of a decomposition are used one by one" do
    [r, det] =
      Native.run([
        {:elem, 1, {:qr, matrix(@square, :f32)}},
        {:let, 1, {:lu, matrix(@square, :f32)},
         {:prod, {:diagonal, {:elem, 2, {:var, 1}}, 0, 0, 1}, [0], false}}
      ])

    assert Native.shape(r) == {3, 3}
    # 4 (6 - 1/16) - 1 (2 + 1/8) - 1/2 (1/4 + 3/2)
    assert_near([abs(Native.item(det))], [20.75], :f32, 64)
  end

  defp matrix(rows, dtype), do: array(List.flatten(rows), [length(rows), length(hd(rows))], dtype)

  # The results of an expression as lists, of rows where they are matrices.
  defp factors(expression) do
    for array <- Native.run([expression], :cpu) do
      case Native.shape(array) do
        {_} -> numbers(array)
        {_, columns} -> array |> numbers() |> Enum.chunk_every(columns)
      end
    end
  end

  defp product(a, b), do: for(row <- a, do: for(column <- transpose(b), do: dot(row, column)))
  defp dot(a, b), do: Enum.zip_with(a, b, &(&1 * &2)) |> Enum.sum()
  defp transpose(rows), do: Enum.zip_with(rows, & &1)
  defp identity(n), do: for(i <- 1..n, do: for(j <- 1..n, do: if(i == j, do: 1.0, else: 0.0)))

  defp assert_matrix(got, wanted, dtype),
    do: assert_near(List.flatten(got), List.flatten(wanted), dtype, 64)
end
