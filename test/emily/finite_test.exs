defmodule Emily.FiniteTest do
  # The configuration is the whole VM's.
  use Emily.CompilerCase, async: false

  doctest Emily.Finite

  @on_emily {Emily.Backend, device: :cpu}

  defp floats_of(list, opts \\ []), do: Nx.tensor(list, [backend: @on_emily] ++ opts)

  defp configured(fun) do
    Application.put_env(:emily, :check_finite, true)
    fun.()
  after
    Application.delete_env(:emily, :check_finite)
    # What makes a tensor looks at the configuration.
    floats_of([1])
    refute Emily.Finite.on?()
  end

  defp message(fun), do: assert_raise(ArithmeticError, fun).message

  describe "config :emily, check_finite: true" do
    test "names the operation, its operands, what it gave, and the place" do
      configured(fn ->
        x = floats_of([1.0, 0.0, -1.0])
        line = __ENV__.line + 1
        message = message(fn -> {Nx.log(x)} end)
        assert message =~ "log of {3} f32 gave 1 NaN and 1 infinities among 3 numbers"
        assert message =~ "finite_test.exs:#{line}"

        assert message(fn -> Nx.divide(x, floats_of([[1], [0]])) end) =~
                 "divide of {3} f32, {2, 1} s32 gave 1 NaN and 2 infinities among 6 numbers"
      end)
    end

    test "looks at every type of floats, and at what has no axes" do
      configured(fn ->
        for type <- [:f16, :bf16, :f32, :f64] do
          assert message(fn -> Nx.sqrt(floats_of(-1.0, type: type)) end) =~ "sqrt of {} #{type}"
          assert Nx.to_number(Nx.sqrt(floats_of(4.0, type: type))) == 2.0
        end

        zero = floats_of([Complex.new(0.0, 0.0)])
        assert message(fn -> Nx.divide(1, zero) end) =~ "divide of"
        # Largest times two.
        assert message(fn -> Nx.multiply(floats_of([6.0e4], type: :f16), 2) end) =~ "1 infinities"
      end)
    end

    test "lets integers pass, and infinities that come in, but no NaN" do
      configured(fn ->
        assert Nx.to_list(Nx.quotient(floats_of([1]), 0)) == [-1]
        mask = floats_of([0.0, :neg_infinity])
        x = floats_of([1.0, 2.0])
        assert Nx.to_list(Nx.add(x, mask)) == [1.0, :neg_infinity]
        assert Nx.to_list(Nx.exp(Nx.add(x, mask))) |> List.last() == 0.0
        assert message(fn -> Nx.subtract(mask, mask) end) =~ "1 NaN"

        assert message(fn -> Nx.add(floats_of([:nan]), 1) end) =~
                 "add of {1} f32, {} s32 gave 1 NaN"
      end)
    end

    test "looks at blocks, and at operations of several results" do
      configured(fn ->
        x = floats_of([3.0e38, 3.0e38])

        assert message(fn -> Nx.cumulative_sum(x) end) =~
                 "cumulative_sum of {2} f32 gave 0 NaN and 1"

        a = floats_of([[1.0, 2.0], [2.0, 1.0]])
        assert message(fn -> Nx.LinAlg.cholesky(a) end) =~ "cholesky of {2, 2} f32"
        assert {_, _} = Nx.LinAlg.qr(a)
      end)
    end

    test "holds for compiled functions, whose name it adds, and not after it is gone" do
      fun = fn x -> x |> Nx.subtract(1) |> Nx.log() |> Nx.sum() end
      x = floats_of([1.0, 2.0])
      jit = Nx.Defn.jit(fun, compiler: Emily.Compiler)
      expected = :neg_infinity
      assert Nx.to_number(jit.(x)) == expected

      configured(fn ->
        message = message(fn -> jit.(x) end)
        assert message =~ "log of {2} f32" and message =~ "in #{inspect(fun)}"
      end)

      assert Nx.to_number(jit.(x)) == expected
      assert Nx.to_list(Nx.log(floats_of([0.0]))) == [:neg_infinity]
    end

    test "is true or false" do
      Application.put_env(:emily, :check_finite, :yes)
      assert_raise ArgumentError, ~r/check_finite: must be/, fn -> floats_of([1.0]) end
    after
      Application.delete_env(:emily, :check_finite)
    end
  end

  describe "the compiler's option" do
    test "is for one function, and wins over the configuration" do
      fun = fn x -> Nx.log(x) end
      x = floats_of([0.0])
      assert message(fn -> compiled(fun, [x], check_finite: true) end) =~ "log of {1} f32"
      assert Nx.to_list(compiled(fun, [x])) == [:neg_infinity]

      configured(fn ->
        for options <- [[], [native: false]],
            do:
              assert(
                Nx.to_list(compiled(fun, [x], [check_finite: false] ++ options)) == [
                  :neg_infinity
                ]
              )

        assert Nx.to_list(compiled(&Nx.exp/1, [x], check_finite: true)) == [1.0]
      end)

      assert_raise ArgumentError, ~r/:check_finite cannot be/, fn ->
        compiled(fun, [x], check_finite: :nan)
      end
    end

    test "gives what is finite as without" do
      x = Nx.tensor([[0.5, 1.0], [2.0, 3.0]])

      for fun <- [
            &Nx.sort/1,
            &Nx.LinAlg.norm/1,
            &Nx.mean/1,
            &Nx.Defn.grad(&1, fn x -> Nx.sum(Nx.exp(x)) end)
          ],
          do: assert_equal(compiled(fun, [x], check_finite: true), evaluated(fun, [x]))
    end
  end
end
