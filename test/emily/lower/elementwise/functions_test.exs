defmodule Emily.Lower.Elementwise.FunctionsTest do
  use Emily.BackendCase, async: true

  @domains Emily.Operations.domains()

  # What MLX has for complex numbers, or what is composed of that.
  @complex [:exp, :expm1, :log, :log1p, :sigmoid, :cos, :sin, :tan, :cosh, :sinh, :tanh] ++
             [:acos, :asin, :atan, :acosh, :asinh, :atanh, :sqrt, :rsqrt, :cbrt]

  for {name, {low, high}} <- @domains do
    property "#{name}" do
      types = if unquote(low) < -1, do: real_types(), else: floats()

      check all(
              type <- type(types),
              shape <- shape(),
              x <- tensor(type, shape, range: {unquote(low), unquote(high)}),
              max_runs: 40
            ) do
        # Nx.BinaryBackend knows erf_inv to f32's precision only.
        rough? = unquote(name) == :erf_inv and type == {:f, 64}
        opts = if rough?, do: [tolerance: 4.0e-6], else: []
        assert_same([x], fn [x] -> Nx.unquote(name)(x) end, opts)
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

  # As C has them.
  test "the sides of complex acosh's and asinh's cuts are told by the sign of zero" do
    half = :math.pi() / 2

    for {fun, {x, y}, {re, im}} <- [
          {&Nx.acosh/1, {-1.0, -0.0}, {0.0, -:math.pi()}},
          {&Nx.acosh/1, {-1.0, 0.0}, {0.0, :math.pi()}},
          {&Nx.acosh/1, {0.0, -0.0}, {0.0, -half}},
          {&Nx.acosh/1, {:infinity, :neg_infinity}, {:infinity, -half / 2}},
          {&Nx.asinh/1, {0.0, 2.0}, {:math.acosh(2.0), half}},
          {&Nx.asinh/1, {-0.0, 2.0}, {-:math.acosh(2.0), half}},
          {&Nx.asinh/1, {:neg_infinity, 1.0}, {:neg_infinity, 0.0}}
        ] do
      z = Nx.tensor([Complex.new(x, y)], type: :c64, backend: Emily.Backend)
      assert_equal(fun.(z), Nx.tensor([Complex.new(re, im)], type: :c64), tolerance: 1.0e-6)
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

  @tag :f64
  test "f64 is right to f64's precision" do
    x = Nx.tensor([-730.0, -700.5, -3.25, -1.0e-9, 1.0e-9, 0.75, 12.5, 700.5], type: :f64)

    for name <- ~w(exp expm1 sin cos tan sigmoid tanh cbrt asinh atan erf erfc)a do
      expected = apply(Nx, name, [x]) |> Nx.to_flat_list()
      actual = apply(Nx, name, [Nx.backend_copy(x, Emily.Backend)]) |> Nx.to_flat_list()

      for {a, e} <- Enum.zip(actual, expected) do
        assert abs(a - e) <= 4.0e-15 * abs(e) + 1.0e-15, "#{name}: #{a}, expected #{e}"
      end
    end
  end

  # mpmath's numbers, with 40 digits inside.
  @erf_inv [
    {1.0e-300, 8.86226925452758e-301},
    {0.1, 0.08885599049425769},
    {0.5, 0.4769362762044699},
    {-0.84, -0.9935356283473041},
    {0.86, 1.0435418436397588},
    {0.999, 2.3267537655135246},
    {-0.99999999, -4.052237243268763},
    {0.9999999999999999, 5.8635847487551676}
  ]
  @erfc [
    {-0.5, 1.5204998778130465},
    {0.2, 0.7772974107895215},
    {0.3, 0.6713732405408726},
    {0.9, 0.20309178757716786},
    {1.5, 0.033894853524689274},
    {3.0, 2.209049699858544e-05},
    {12.0, 1.3562611692059042e-64},
    {26.5, 2.2109076642637343e-307}
  ]
  @erf [
    {1.0e-300, 1.1283791670955126e-300},
    {-0.5, -0.5204998778130465},
    {0.9, 0.7969082124228322},
    {1.5, 0.9661051464753108},
    {3.0, 0.9999779095030014},
    {12.0, 1.0}
  ]

  @tag :f64
  test "the error functions in f64 keep f64's digits everywhere" do
    for {name, cases} <- [erf: @erf, erfc: @erfc, erf_inv: @erf_inv] do
      {xs, expected} = Enum.unzip(cases)
      x = Nx.tensor(xs, type: :f64, backend: Emily.Backend)

      for {a, e} <- Enum.zip(Nx.to_flat_list(apply(Nx, name, [x])), expected) do
        assert_in_delta a / e, 1.0, 1.0e-15, "#{name}: #{a}, expected #{e}"
      end
    end

    ends = Nx.tensor([1, -1, 0, 2], type: :f64, backend: Emily.Backend)
    assert Nx.to_flat_list(Nx.erf_inv(ends)) == [:infinity, :neg_infinity, 0.0, :nan]
  end

  @tag :f64
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
    assert Nx.to_flat_list(Nx.erf(wide)) == [:nan, 1.0, -1.0]
    assert Nx.to_flat_list(Nx.erfc(wide)) == [:nan, 0.0, 2.0]
    assert Nx.to_flat_list(Nx.erf_inv(wide)) == [:nan, :nan, :nan]
  end

  describe "complex numbers that are not finite" do
    @parts [:infinity, :neg_infinity, :nan, 0.0, 1.5, -2.0]
    @numbers for re <- @parts, im <- @parts, do: Complex.new(re, im)

    test "acos, asin, atanh and pow are NaN as on Nx.BinaryBackend" do
      x = Nx.tensor(@numbers)

      # Off the cuts, on which a zero's sign decides.
      y = Nx.select(finite(x), Complex.new(0.5, 0.5), x)

      for fun <- [&Nx.acos/1, &Nx.asin/1, &Nx.atanh/1],
          do: assert_same([y], fn [y] -> fun.(y) end, tolerance: 1.0e-5)

      # Powers of what is finite are compared elsewhere.
      base = Nx.new_axis(Nx.select(finite(x), :infinity, x), 1)
      # A number as an exponent is a complex one to MLX.
      for exponent <- [x, Nx.real(x)] do
        assert_same([base, exponent], fn [x, y] -> Nx.pow(x, y) end, tolerance: 1.0e-5)
      end

      exponent = Nx.select(finite(x), :infinity, x)

      for base <- [Complex.new(0.0, 0.0), Complex.new(0.5, 0.5)] do
        assert_same([Nx.tensor(base), exponent], fn [x, y] -> Nx.pow(x, y) end)
      end
    end

    test "cbrt has a third of the angle" do
      third = :math.pi() / 3

      for {z, expected} <- [
            {Complex.new(:infinity, 3.0), {:infinity, 0.0}},
            {Complex.new(:infinity, 0.0), {:infinity, 0.0}},
            {Complex.new(:infinity, -2.0), {:infinity, 0.0}},
            {Complex.new(:neg_infinity, 3.0), {:infinity, :infinity}},
            {Complex.new(2.0, :neg_infinity), {:infinity, :neg_infinity}},
            {Complex.new(-8.0, 0.0), {2 * :math.cos(third), 2 * :math.sin(third)}}
          ] do
        [actual] = Nx.tensor(z, backend: Emily.Backend) |> Nx.cbrt() |> Nx.to_flat_list()
        assert_near(actual.re, elem(expected, 0))
        assert_near(actual.im, elem(expected, 1))
      end
    end

    defp assert_near(actual, expected) when is_float(expected),
      do: assert_in_delta(actual, expected, 1.0e-6)

    defp assert_near(actual, expected), do: assert(actual == expected)

    defp finite(x) do
      [Nx.real(x), Nx.imag(x)]
      |> Enum.map(&Nx.logical_not(Nx.logical_or(Nx.is_nan(&1), Nx.is_infinity(&1))))
      |> Enum.reduce(&Nx.logical_and/2)
    end
  end
end
