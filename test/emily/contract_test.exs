defmodule Emily.ContractTest do
  # Where MLX differs from Nx, case by case: one test a difference, with numbers worked out by hand.
  use Emily.BackendCase, async: true

  import Bitwise

  defp t(numbers, opts \\ []), do: Nx.tensor(numbers, [backend: Emily.Backend] ++ opts)
  defp list(tensor), do: Nx.to_flat_list(tensor)

  setup do
    Process.put(Emily.Fallback, :raise)
    :ok
  end

  describe "element-wise" do
    test "the remainder has the sign of the dividend" do
      assert list(Nx.remainder(t([-7, 7, -7, 7]), t([3, -3, -3, 3]))) == [-1, 1, -1, 1]
      assert list(Nx.remainder(t([-7.5, 7.5, -7.5]), t([2.0, -2.0, -2.0]))) == [-1.5, 1.5, -1.5]
      assert list(Nx.quotient(t([-7, 7]), t([2, -2]))) == [-3, -3]
    end

    test "integer division by zero does not end the VM" do
      assert list(Nx.quotient(t([5, -5]), t([0, 0]))) == [-1, -1]
      assert list(Nx.remainder(t([5, -5]), t([0, 0]))) == [5, -5]
      assert list(Nx.quotient(t([5], type: :u8), t([0], type: :u8))) == [255]
    end

    test "the least integer divided by -1 wraps" do
      for type <- [:s8, :s16, :s32, :s64] do
        {:s, bits} = Nx.Type.normalize!(type)
        least = -Bitwise.bsl(1, bits - 1)
        assert list(Nx.quotient(t([least], type: type), t([-1], type: type))) == [least]
        assert list(Nx.remainder(t([least], type: type), t([-1], type: type))) == [0]
      end
    end

    test "shifts by the width or more leave nothing, or the sign" do
      assert list(Nx.left_shift(t([1, 1, -1]), t([31, 40, 32]))) == [-2_147_483_648, 0, 0]
      assert list(Nx.right_shift(t([-8, 8, -8]), t([40, 40, 1]))) == [-1, 0, -4]
      assert list(Nx.right_shift(t([255], type: :u8), t([8], type: :u8))) == [0]
    end

    test "halves round away from zero" do
      assert list(Nx.round(t([0.5, 1.5, 2.5, -0.5, -2.5]))) == [1.0, 2.0, 3.0, -1.0, -3.0]
      # Adding a half to the greatest float below a half gives one.
      assert list(Nx.round(t([0.49999997, 8_388_609.0]))) == [0.0, 8_388_609.0]
    end

    test "the sign of NaN is NaN" do
      assert list(Nx.sign(t([:nan, :neg_infinity, -0.5, 0.0]))) == [:nan, -1.0, -1.0, 0.0]
    end

    test "expm1, sigmoid and log1p of complex numbers" do
      z = Complex.new(0.5, -1.25)
      one = Complex.new(1.0, 0.0)

      for {name, expected} <- [
            expm1: Complex.subtract(Complex.exp(z), one),
            sigmoid: Complex.divide(one, Complex.add(one, Complex.exp(Complex.negate(z)))),
            log1p: Complex.log(Complex.add(z, one))
          ] do
        actual = apply(Nx, name, [t(z)]) |> Nx.to_number()
        assert Complex.abs(Complex.subtract(actual, expected)) < 1.0e-6
      end
    end

    test "erfc and cbrt" do
      assert_in_delta Nx.to_number(Nx.erfc(t(0.25))), 0.7236736098317631, 1.0e-6
      assert list(Nx.cbrt(t([27.0, -8.0, 0.0]))) == [3.0, -2.0, 0.0]
    end

    test "leading zeros and set bits" do
      assert list(Nx.count_leading_zeros(t([0, 1, -1, 255]))) == [32, 31, 0, 24]
      assert list(Nx.count_leading_zeros(t([0, 1], type: :u8))) == [8, 7]
      assert list(Nx.population_count(t([0, 1, -1, 255]))) == [0, 1, 32, 8]
      assert list(Nx.population_count(t([-1], type: :s64))) == [64]
    end

    test "comparisons and logic give u8" do
      for name <- [:equal, :less, :logical_and, :logical_xor] do
        assert Nx.type(apply(Nx, name, [t([1, 0]), t([1.0, 1.0])])) == {:u, 8}
      end

      assert Nx.type(Nx.logical_not(t([1]))) == {:u, 8}
      assert list(Nx.logical_not(t([:nan, 0.0, 2.0]))) == [0, 1, 0]
    end

    test "floats that no integer holds" do
      special = t([:nan, :infinity, :neg_infinity])
      assert list(Nx.as_type(special, :s32)) == [0, 2_147_483_647, -2_147_483_648]
      assert list(Nx.as_type(special, :u8)) == [0, 255, 0]

      assert list(Nx.as_type(special, :s64)) == [
               0,
               9_223_372_036_854_775_807,
               -9_223_372_036_854_775_808
             ]

      assert list(Nx.as_type(special, :u64)) == [0, 18_446_744_073_709_551_615, 0]
      assert list(Nx.as_type(t([300.7, -1.5]), :u8)) == [44, 255]
    end

    test "a negative power of an integer ends" do
      assert list(Nx.pow(t([2, 1, -1, -1, 0]), t([-1, -5, -2, -3, -1]))) == [0, 1, 1, -1, 0]
    end

    @tag :f64
    test "f64 is right to f64's precision" do
      assert Nx.to_number(Nx.exp(t(1.0, type: :f64))) == :math.exp(1.0)
      assert_in_delta Nx.to_number(Nx.sin(t(2.0, type: :f64))), :math.sin(2.0), 2.0e-16
      assert Nx.to_number(Nx.add(t(0.1, type: :f64), t(0.2, type: :f64))) == 0.1 + 0.2
    end
  end

  describe "reductions, sorting, indexing" do
    test "half-precision sums accumulate in f32" do
      ones = Nx.broadcast(t(1, type: :bf16), {4096})
      assert Nx.to_number(Nx.sum(ones)) == 4096.0
      ones = Nx.broadcast(t(1, type: :f16), {10_000})
      assert Nx.to_number(Nx.mean(ones)) == 1.0
      assert Nx.to_number(Nx.sum(ones)) == 10_000.0
      last = ones |> Nx.cumulative_sum() |> Nx.slice([9_999], [1]) |> list()
      assert last == [10_000.0]
      assert ones |> Nx.reshape({100, 100}) |> Nx.window_sum({100, 100}) |> list() == [10_000.0]
    end

    test "sums of u64" do
      x = Nx.broadcast(t(9_223_372_036_854_775_808, type: :u64), {3, 1000})
      assert list(Nx.sum(x, axes: [1])) == [0, 0, 0]

      assert Nx.to_number(Nx.sum(t([1, 9_223_372_036_854_775_806], type: :u64))) ==
               9_223_372_036_854_775_807

      assert list(Nx.cumulative_sum(t([1, 18_446_744_073_709_551_614], type: :u64))) == [
               1,
               18_446_744_073_709_551_615
             ]

      assert list(Nx.cumulative_sum(t([1, 2, 3], type: :u64))) == [1, 3, 6]
      assert list(Nx.product(t([[3, 5]], type: :u64), axes: [1])) == [15]
    end

    test "argmax and argmin: ties, NaN, all axes" do
      x = t([[3, 7, 7], [7, 1, 1]])
      assert list(Nx.argmax(x)) == [1]
      assert list(Nx.argmax(x, tie_break: :high)) == [3]
      assert list(Nx.argmin(x, axis: 1, tie_break: :high)) == [0, 2]
      assert list(Nx.argmin(x, axis: 1)) == [0, 1]
      assert list(Nx.argmax(t([1.0, :nan, 5.0]))) == [1]
      assert list(Nx.argmin(t([1.0, :nan, 5.0]))) == [1]
      assert Nx.shape(Nx.argmax(x, axis: 0, keep_axis: true)) == {1, 3}
    end

    test "NaN passes through max and min, and sorts last" do
      x = t([2.0, :nan, -1.0, :infinity])
      assert list(Nx.reduce_max(x)) == [:nan]
      assert list(Nx.reduce_min(x)) == [:nan]
      assert list(Nx.max(x, 0.0)) == [2.0, :nan, 0.0, :infinity]
      assert list(Nx.sort(x)) == [-1.0, 2.0, :infinity, :nan]
      assert list(Nx.sort(x, direction: :desc)) == [:nan, :infinity, 2.0, -1.0]
    end

    test "descending argsort keeps the order of equals" do
      x = t([1, 2, 1, 2, 1])
      assert list(Nx.argsort(x, direction: :desc, stable: true)) == [1, 3, 0, 2, 4]
      assert list(Nx.argsort(x, stable: true)) == [0, 2, 4, 1, 3]
    end

    test "an index of 10^8 does not end the VM" do
      x = t([1, 2, 3])
      far = t([100_000_000])
      assert list(Nx.take(x, far)) == [3]
      assert list(Nx.gather(x, Nx.new_axis(far, 1))) == [3]
      assert list(Nx.indexed_put(x, Nx.new_axis(far, 1), t([9]))) == [1, 2, 9]
      assert list(Nx.indexed_add(x, Nx.new_axis(Nx.negate(far), 1), t([9]))) == [10, 2, 3]
    end

    test "an index of u64 beyond s64 is the last, a negative one of s8 the first" do
      x = t([1, 2, 3])

      for {index, type, at} <-
            [{18_446_744_073_709_551_615, :u64, 2}, {1 <<< 63, :u64, 2}] ++
              [{-1, :s8, 0}, {-128, :s8, 0}, {127, :s8, 2}, {255, :u8, 2}] ++
              [{-32_768, :s16, 0}, {-(1 <<< 63), :s64, 0}, {1 <<< 62, :s64, 2}] do
        i = t([index], type: type)
        column = Nx.new_axis(i, 1)
        assert list(Nx.take(x, i)) == [at + 1]
        assert list(Nx.take_along_axis(x, i)) == [at + 1]
        assert list(Nx.gather(x, column)) == [at + 1]
        assert list(Nx.indexed_put(x, column, t([9]))) == List.replace_at([1, 2, 3], at, 9)
        assert list(Nx.indexed_add(x, column, t([9]))) == List.replace_at([1, 2, 3], at, at + 10)

        # Two axes, which MLX gathers and scatters in another way.
        y = Nx.reshape(x, {1, 3})
        both = Nx.stack([Nx.multiply(i, 0), i], axis: 1)
        assert list(Nx.gather(y, both)) == [at + 1]
        assert list(Nx.indexed_put(y, both, t([9]))) == List.replace_at([1, 2, 3], at, 9)
      end
    end

    test "starts of every type are clamped" do
      x = t([1, 2, 3, 4])

      for {start, type, at} <-
            [{18_446_744_073_709_551_615, :u64, 2}, {1 <<< 63, :u64, 2}] ++
              [{-1, :s8, 0}, {127, :s8, 2}, {255, :u8, 2}, {-128, :s8, 0}] ++
              [{-(1 <<< 63), :s64, 0}, {(1 <<< 63) - 1, :s64, 2}] do
        start = t(start, type: type)
        assert list(Nx.slice(x, [start], [2])) == [at + 1, at + 2]
        put = Nx.put_slice(x, [start], t([8, 9]))
        assert list(put) == [1, 2, 3, 4] |> List.replace_at(at, 8) |> List.replace_at(at + 1, 9)

        y = Nx.reshape(x, {4, 1})
        assert list(Nx.slice(y, [start, 0], [2, 1])) == [at + 1, at + 2]
        assert list(Nx.put_slice(y, [start, t(5)], t([[8], [9]]))) == list(put)
      end

      # Beyond the axis without a tensor among the starts.
      assert list(Nx.slice(x, [18_446_744_073_709_551_615], [2])) == [3, 4]
      assert list(Nx.put_slice(x, [18_446_744_073_709_551_615], t([8, 9]))) == [1, 2, 8, 9]
    end

    test "dynamic starts are clamped" do
      x = t([1, 2, 3, 4])
      assert list(Nx.slice(x, [t(100)], [2])) == [3, 4]
      assert list(Nx.slice(x, [t(-100)], [2])) == [1, 2]
      assert list(Nx.put_slice(x, [t(100)], t([8, 9]))) == [1, 2, 8, 9]
      assert list(Nx.put_slice(x, [3], t([8, 9]))) == [1, 2, 8, 9]
    end

    test "windows with dilation" do
      x = t([[1, 2, 3, 4, 5], [10, 20, 30, 40, 50]])
      sums = Nx.window_sum(x, {1, 2}, window_dilations: [1, 2])
      assert list(sums) == [4, 6, 8, 40, 60, 80]
      assert list(Nx.window_max(x, {2, 2}, padding: :same, strides: [1, 3])) == [20, 50, 20, 50]
    end

    test "window_scatter_max gives each window's source to its greatest element" do
      x = t([[7, 2, 5, 3], [3, 8, 9, 3]])
      source = t([[2, 6]])
      scattered = Nx.window_scatter_max(x, source, 0, {2, 2}, strides: [2, 2], padding: :valid)
      assert list(scattered) == [0, 0, 0, 0, 0, 2, 6, 0]
    end

    test "top_k gives values and indices" do
      {values, indices} = Nx.top_k(t([4, 9, 1, 9]), k: 3)
      assert {list(values), list(indices)} == {[9, 9, 4], [1, 3, 0]}
      assert Nx.type(indices) == {:s, 32}
    end
  end

  describe "linear algebra, convolution, transforms" do
    test "products of integers are exact beyond 2^24" do
      assert Nx.to_number(Nx.dot(t([16_777_217, 1]), t([1, 0]))) == 16_777_217
      x = Nx.broadcast(t(16_777_217), {300, 300})
      identity = Nx.eye(300, backend: Emily.Backend)
      assert x |> Nx.dot(identity) |> Nx.equal(16_777_217) |> Nx.all() |> Nx.to_number() == 1
      big = t([9_007_199_254_740_993], type: :s64)
      assert Nx.to_number(Nx.dot(big, t([1], type: :s64))) == 9_007_199_254_740_993
    end

    test "convolution of integers, with padding of one side" do
      x = t([[[1, 2, 3]]])
      k = t([[[1, 10]]])
      assert list(Nx.conv(x, k, padding: [{1, 0}])) == [10.0, 21.0, 32.0]
      assert list(Nx.conv(x, k, padding: [{0, 1}])) == [21.0, 32.0, 3.0]
    end

    test "interior and negative padding" do
      x = t([1, 2, 3])
      assert list(Nx.pad(x, 0, [{1, 0, 1}])) == [0, 1, 0, 2, 0, 3]
      assert list(Nx.pad(x, 0, [{-1, 0, 0}])) == [2, 3]
      assert list(Nx.pad(x, 9, [{-1, 2, 1}])) == [9, 2, 9, 3, 9, 9]
    end

    test "triangular_solve from the right and of a transposed matrix" do
      a = t([[2.0, 0.0], [1.0, 4.0]])
      assert list(Nx.LinAlg.triangular_solve(a, t([2.0, 9.0]))) == [1.0, 2.0]

      assert list(Nx.LinAlg.triangular_solve(a, t([4.0, 8.0]), transform_a: :transpose)) == [
               1.0,
               2.0
             ]

      assert list(Nx.LinAlg.triangular_solve(a, t([[4.0, 8.0]]), left_side: false)) == [1.0, 2.0]
      upper = t([[2.0, 1.0], [7.0, 4.0]])
      assert list(Nx.LinAlg.triangular_solve(upper, t([4.0, 8.0]), lower: false)) == [1.0, 2.0]
    end

    test "the eigenvalue furthest from zero comes first" do
      {values, _} = Nx.LinAlg.eigh(t([[1.0, 0.0], [0.0, -3.0]]))
      assert list(values) == [-3.0, 1.0]
    end

    test "the permutation, the lower and the upper factor" do
      {p, l, u} = Nx.LinAlg.lu(t([[1, 2, 3], [4, 5, 6], [7, 8, 10]]))
      assert Nx.type(p) == {:s, 32}
      assert list(p) == [0, 1, 0, 0, 0, 1, 1, 0, 0]
      back = p |> Nx.dot(l) |> Nx.dot(u)

      for {a, e} <- Enum.zip(list(back), [1, 2, 3, 4, 5, 6, 7, 8, 10]),
          do: assert_in_delta(a, e, 1.0e-5)
    end

    test "a singular value that is only rounding is zero" do
      a = t([[1, 2, 3], [4, 5, 6], [7, 8, 9]], type: :f32)
      {_, s, _} = Nx.LinAlg.svd(a)
      assert s |> list() |> List.last() == 0.0
      back = a |> Nx.dot(Nx.LinAlg.pinv(a)) |> Nx.dot(a)
      for {x, e} <- Enum.zip(list(back), list(a)), do: assert_in_delta(x, e, 1.0e-4)
    end

    @tag :f64
    test "a determinant far below f32's range" do
      a = Nx.multiply(Nx.eye(4, type: :f64, backend: Emily.Backend), t(1.0e-20, type: :f64))
      assert_in_delta Nx.to_number(Nx.LinAlg.determinant(a)) / 1.0e-80, 1.0, 1.0e-12
      assert Nx.to_number(Nx.LinAlg.determinant(t([[0, 1], [1, 0]]))) == -1.0
    end

    test "transforms pad and cut" do
      assert list(Nx.fft(t([1, 1]), length: 4)) ==
               [
                 Complex.new(2.0, 0.0),
                 Complex.new(1.0, -1.0),
                 Complex.new(0.0, 0.0),
                 Complex.new(1.0, 1.0)
               ]

      assert list(Nx.fft(t([1, 2, 3]), length: 1)) == [Complex.new(1.0, 0.0)]
    end
  end
end
