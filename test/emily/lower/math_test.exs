defmodule Emily.Lower.MathTest do
  use Emily.BackendCase, async: true

  @domains [
    exp: {-6, 6},
    expm1: {-3, 3},
    log: {0.01, 20},
    log1p: {-0.9, 20},
    sigmoid: {-8, 8},
    cos: {-20, 20},
    sin: {-20, 20},
    tan: {-1.4, 1.4},
    cosh: {-4, 4},
    sinh: {-4, 4},
    tanh: {-4, 4},
    acos: {-1, 1},
    asin: {-1, 1},
    atan: {-9, 9},
    acosh: {1, 9},
    asinh: {-9, 9},
    atanh: {-0.9, 0.9},
    sqrt: {0, 30},
    rsqrt: {0.1, 30},
    cbrt: {-30, 30},
    erf: {-3, 3},
    erfc: {-3, 5},
    erf_inv: {-0.9, 0.9}
  ]

  # What MLX has for complex numbers, or what is composed of that.
  @complex [:exp, :expm1, :log, :log1p, :sigmoid, :cos, :sin, :tan, :cosh, :sinh, :tanh] ++
             [:acos, :asin, :atan, :acosh, :asinh, :atanh, :sqrt, :rsqrt]

  @in_f64_by_fallback [:erf, :erfc, :erf_inv]

  for {name, {low, high}} <- @domains do
    property "#{name}" do
      types = if unquote(low) < -1, do: real_types(), else: floats()

      check all(
              type <- type(types),
              shape <- shape(),
              x <- tensor(type, shape, range: {unquote(low), unquote(high)}),
              max_runs: 40
            ) do
        fallback = type == {:f, 64} and unquote(name in @in_f64_by_fallback)
        assert_same([x], fn [x] -> Nx.unquote(name)(x) end, fallback: fallback)
      end
    end
  end

  for name <- @complex do
    property "#{name} of complex numbers" do
      check all(x <- tensor({:c, 64}, {6}, range: {0.1, 2}), max_runs: runs()) do
        assert_same([x], fn [x] -> Nx.unquote(name)(x) end, tolerance: 4.0e-5)
      end
    end
  end

  test "erfc keeps its digits where erf is near 1" do
    x = Nx.tensor([3.0, 5.0, 8.0, -8.0], backend: Emily.Backend)

    for {actual, expected} <-
          Enum.zip(Nx.to_flat_list(Nx.erfc(x)), [
            2.209049699858544e-5,
            1.5374597944280349e-12,
            1.1224297172982928e-29,
            2.0
          ]) do
      assert_in_delta actual / expected, 1.0, 1.0e-5
    end
  end

  test "f64 is right to f64's precision" do
    x = Nx.tensor([-700.5, -3.25, -1.0e-9, 1.0e-9, 0.75, 12.5, 700.5], type: :f64)

    for name <- [:exp, :sin, :cos, :sigmoid, :tanh, :cbrt, :asinh] do
      expected = apply(Nx, name, [x]) |> Nx.to_flat_list()
      actual = apply(Nx, name, [Nx.backend_copy(x, Emily.Backend)]) |> Nx.to_flat_list()

      for {a, e} <- Enum.zip(actual, expected) do
        assert abs(a - e) <= 4.0e-15 * abs(e) + 1.0e-15, "#{name}: #{a}, expected #{e}"
      end
    end
  end

  test "functions of what is not finite" do
    x = Nx.tensor([:nan, :infinity, :neg_infinity], backend: Emily.Backend)

    assert Nx.to_flat_list(Nx.exp(x)) == [:nan, :infinity, 0.0]
    assert Nx.to_flat_list(Nx.tanh(x)) == [:nan, 1.0, -1.0]
    assert Nx.to_flat_list(Nx.sigmoid(x)) == [:nan, 1.0, 0.0]
    assert Nx.to_flat_list(Nx.erf(x)) == [:nan, 1.0, -1.0]
    assert Nx.to_flat_list(Nx.cbrt(x)) == [:nan, :infinity, :neg_infinity]
    assert Nx.to_flat_list(Nx.erfc(x)) == [:nan, 0.0, 2.0]

    wide = Nx.as_type(x, :f64)
    assert Nx.to_flat_list(Nx.exp(wide)) == [:nan, :infinity, 0.0]
    assert Nx.to_flat_list(Nx.sigmoid(wide)) == [:nan, 1.0, 0.0]
  end
end
