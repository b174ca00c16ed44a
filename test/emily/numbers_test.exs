defmodule Emily.NumbersTest do
  # Numbers of the caller's code: what they become in each type, eagerly, evaluated and compiled.
  use Emily.BackendCase, async: true

  alias Nx.Random

  setup do
    Nx.default_backend(Emily.Backend)
    :ok
  end

  # Where cutting off, rounding to the nearest and rounding twice differ.
  @numbers [-0.9995, 0.1, 257.9, 259.0, 1 + 0x801 / 0x800_0000, 65_519.0, 1.0e-40, -3.3e38, 7]

  defp plain(fun), do: Nx.with_default_backend(Nx.BinaryBackend, fun)

  defp greatest(type), do: plain(fn -> Nx.to_number(Nx.Constants.max_finite(type)) end)

  defp jit(fun, args, compiler), do: Nx.Defn.jit_apply(fun, args, compiler: compiler)

  for type <- [{:bf, 16}, {:f, 16}, {:f, 32}, {:f, 64}] do
    @type_under_test type
    if type == {:f, 64}, do: @tag(:f64)

    test "#{inspect(type)}: a constant is what Nx.tensor makes of the number" do
      type = @type_under_test

      for number <- @numbers, abs(number) < greatest(type) do
        expected = plain(fn -> Nx.to_binary(Nx.tensor(number, type: type)) end)
        assert Nx.to_binary(Nx.tensor(number, type: type)) == expected
        assert Nx.to_binary(Nx.tensor([number], type: type)) == expected

        assert Nx.to_binary(Nx.broadcast(Nx.tensor(number, type: type), {2})) ==
                 expected <> expected

        for compiler <- [Nx.Defn.Evaluator, Emily.Compiler] do
          zero = Nx.tensor(0, type: type)

          assert Nx.to_binary(
                   jit(
                     &(Nx.max(&1, Nx.tensor(number, type: type))
                       |> Nx.subtract(&1)
                       |> Nx.add(Nx.min(&1, Nx.tensor(number, type: type)))),
                     [zero],
                     compiler
                   )
                 ) == expected
        end
      end
    end
  end

  test "bf16: a number in an operation is cut off wherever it stands" do
    x = Nx.tensor([1.0, -1.0], type: :bf16)

    for {fun, expected} <- [
          {&Nx.multiply(&1, 257.9), [256.0, -256.0]},
          {&Nx.multiply(257.9, &1), [256.0, -256.0]},
          {&Nx.multiply(&1, 259), [258.0, -258.0]},
          {&Nx.max(&1, 257.9), [256.0, 256.0]},
          {&Nx.select(Nx.greater(&1, 0), 259, &1), [258.0, -1.0]},
          {&Nx.pad(&1, 259, [{1, 0, 0}]), [258.0, 1.0, -1.0]},
          {&Nx.clip(Nx.multiply(&1, 300), -259, 259), [258.0, -258.0]},
          {&Nx.add(Nx.multiply(&1, 0), Nx.as_type(257.9, :bf16)), [256.0, 256.0]},
          {&Nx.add(Nx.multiply(&1, 0), Nx.tensor([257.9, 259.0], type: :bf16)), [256.0, 258.0]}
        ],
        run <- [
          fn f -> f.(x) end,
          &jit(&1, [x], Nx.Defn.Evaluator),
          &jit(&1, [x], Emily.Compiler)
        ] do
      assert Nx.to_flat_list(run.(fun)) == expected
    end
  end

  test "bf16: what is computed is rounded to the nearest" do
    assert Nx.to_flat_list(Nx.as_type(Nx.tensor([257.9, 258.9]), :bf16)) == [258.0, 258.0]

    assert Nx.to_flat_list(Nx.add(Nx.tensor([256.0], type: :bf16), Nx.tensor([1.9], type: :bf16))) ==
             [258.0]
  end

  for type <- [{:bf, 16}, {:f, 16}] do
    @type_under_test type
    test "#{inspect(type)}: counting rounds as Nx.tensor does" do
      for {shape, opts} <- [{{1000}, []}, {{3, 700}, [axis: 1]}, {{40, 50}, []}] do
        opts = opts ++ [type: @type_under_test]
        expected = plain(fn -> Nx.to_binary(Nx.iota(shape, opts)) end)
        assert Nx.to_binary(Nx.iota(shape, opts)) == expected

        for compiler <- [Nx.Defn.Evaluator, Emily.Compiler] do
          result =
            jit(
              fn x -> Nx.add(Nx.iota(shape, opts), x) end,
              [Nx.tensor(0, type: @type_under_test)],
              compiler
            )

          assert Nx.to_binary(result) == expected
        end
      end

      assert Nx.to_binary(Nx.eye(3, type: @type_under_test)) ==
               plain(fn -> Nx.to_binary(Nx.eye(3, type: @type_under_test)) end)
    end
  end

  # Nx computes the bounds in the type: cut off they lie within, rounded up beyond, where the normal distribution is infinite.
  for type <- [{:bf, 16}, {:f, 16}, {:f, 32}, {:f, 64}], seed <- [1, 42, 1701] do
    @type_under_test type
    @seed_under_test seed
    if type == {:f, 64}, do: @tag(:f64)

    test "#{inspect(type)}: random numbers are finite and in their interval, key #{seed}" do
      type = @type_under_test
      key = Random.key(@seed_under_test)
      count = {1_000_000}

      draws = fn key ->
        {uniform, key} = Random.uniform(key, shape: count, type: type)
        {between, key} = Random.uniform(key, -0.9, 0.7, shape: count, type: type)
        {normal, key} = Random.normal(key, shape: count, type: type)
        {gumbel, _key} = Random.gumbel(key, shape: count, type: type)
        {uniform, between, normal, gumbel}
      end

      draws = draws |> jit([key], Emily.Compiler) |> Tuple.to_list()

      for x <- draws do
        assert Nx.to_number(Nx.any(Nx.logical_or(Nx.is_nan(x), Nx.is_infinity(x)))) == 0
      end

      [uniform, between, _normal, _gumbel] = draws

      for {x, low, high} <- [{uniform, 0.0, 1.0}, {between, -0.9, 0.7}] do
        assert Nx.to_number(Nx.reduce_min(x)) >= Nx.to_number(Nx.tensor(low, type: type))
        assert Nx.to_number(Nx.reduce_max(x)) < high
      end
    end
  end

  test "normal random numbers of bf16 are those of Nx.BinaryBackend but for the last place" do
    run = fn -> elem(Random.normal(Random.key(42), shape: {512}, type: :bf16), 0) end
    assert_equal(run.(), plain(run), tolerance: 4.0e-2)
  end
end
