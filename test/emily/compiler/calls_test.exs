defmodule Emily.Compiler.CallsTest do
  # What a compiled function hands to Elixir, and what it raises. Not async: fallbacks are counted for the
  # whole VM.
  use Emily.CompilerCase, async: false

  import Nx.Defn
  alias Emily.Fallback

  # Nx 0.12 gave runtime_call options.
  defp runtime_call(out, x, fun) do
    if function_exported?(Nx, :runtime_call, 4),
      do: apply(Nx, :runtime_call, [out, x, [mark: 1], fn x, [mark: 1] -> fun.(x) end]),
      else: apply(Nx, :runtime_call, [out, x, fun])
  end

  describe "runtime_call" do
    test "takes and gives a tensor, amid operations" do
      test = self()

      fun = fn x ->
        seen = fn t ->
          send(test, {:seen, self(), t})
          Nx.tensor(Enum.reverse(Nx.to_flat_list(t)))
        end

        Nx.template({3}, :s32) |> runtime_call(Nx.add(x, 1), seen) |> Nx.multiply(2)
      end

      assert_equal(compiled(fun, [Nx.tensor([1, 2, 3])]), Nx.tensor([8, 6, 4]))
      assert_received {:seen, ^test, seen}
      assert_equal(seen, Nx.tensor([2, 3, 4]))
    end

    test "takes and gives tuples and maps" do
      x = Nx.tensor([[1.0, 2.0], [3.0, 4.0]])

      tuples = fn x ->
        out = {Nx.template({}, :f32), Nx.template({2, 2}, :s64, names: [:a, nil])}

        {a, b} =
          runtime_call(out, {x, Nx.sum(x)}, fn {x, sum} ->
            {sum, x |> Nx.as_type(:s64) |> Nx.rename([:a, nil])}
          end)

        {Nx.add(a, 1), b}
      end

      assert_equal(
        compiled(tuples, [x]),
        {Nx.tensor(11.0), Nx.as_type(x, :s64) |> Nx.rename([:a, nil])}
      )

      nested = fn x ->
        %{sum: sum, parts: {first, _}} =
          runtime_call(
            %{
              sum: Nx.template({}, :f32),
              parts: {Nx.template({2}, :f32), Nx.template({2}, :f32)}
            },
            %{whole: x, half: {Nx.divide(x, 2)}},
            fn %{whole: x, half: {half}} -> %{sum: Nx.sum(half), parts: {x[0], x[1]}} end
          )

        Nx.add(first, sum)
      end

      if function_exported?(Nx, :runtime_call, 4),
        do: assert_equal(compiled(nested, [x]), Nx.tensor([6.0, 7.0]))
    end

    test "runs in each iteration of a loop, and in the branch that is taken" do
      assert_equal(compiled(&looped/1, [1]), Nx.tensor(16))
      assert mailbox() == for(n <- [1, 2, 4, 8], do: {:doubled, n})
    end

    defn looped(x) do
      {x, _} =
        while {x, i = 0}, i < 8 do
          if Nx.remainder(i, 2) == 0, do: {doubled(x), i + 1}, else: {x, i + 1}
        end

      x
    end

    deftransformp doubled(x) do
      runtime_call(Nx.template({}, :s32), x, fn x ->
        send(self(), {:doubled, Nx.to_number(x)})
        Nx.multiply(x, 2)
      end)
    end

    test "results that are not as the template says are refused, and the next call works" do
      fun = fn x, wrong ->
        out = Nx.template({2}, :s32)

        runtime_call(out, {x, wrong}, fn {x, wrong} ->
          case Nx.to_number(wrong) do
            0 -> x
            1 -> Nx.as_type(x, :f32)
            2 -> Nx.new_axis(x, 0)
            3 -> {x, x}
            4 -> :nothing
          end
        end)
      end

      x = Nx.tensor([1, 2])

      for wrong <- 1..4 do
        assert_raise ArgumentError, ~r/template/, fn -> compiled(fun, [x, wrong]) end
        assert mailbox() == []
      end

      assert_equal(compiled(fun, [x, 0]), x)
    end
  end

  describe "an operation that MLX cannot do" do
    defn subtracted(x), do: Nx.reduce(x * 2, 100, fn a, b -> a - b end) + 1

    defn subtracted_often(x) do
      {x, _} =
        while {x, i = 0}, i < 4 do
          {x + Nx.reduce(x, 0, fn a, b -> b - a * 2 end), i + 1}
        end

      x
    end

    defn mapped(x), do: Nx.window_reduce(x, 0, {2}, fn a, b -> a - b end)

    test "is evaluated amid the program, and counted once a run" do
      x = Nx.tensor([1, 2, 3])

      for {fun, runs} <- [{&subtracted/1, 1}, {&subtracted_often/1, 4}, {&mapped/1, 1}],
          options <- [[native_fallback: :eval], []] do
        expected = evaluated(fun, [x])

        Fallback.with_mode(:silent, fn ->
          compile = Fallback.count()
          run = Nx.Defn.compile(fun, [x], [compiler: Emily.Compiler] ++ options)
          assert Fallback.count() == compile

          for calls <- 1..3 do
            assert_equal(run.(x), expected)
            assert Fallback.count() == compile + calls * runs
          end
        end)
      end
    end

    def left(_event, _measurements, metadata, test), do: send(test, {:left, metadata})

    test "is reported with its reason" do
      :telemetry.attach(
        __MODULE__,
        [:emily, :fallback, :stop],
        &__MODULE__.left/4,
        self()
      )

      Fallback.with_mode(:silent, fn -> compiled(&subtracted/1, [Nx.tensor([1, 2])]) end)
      :telemetry.detach(__MODULE__)
      assert_received {:left, %{op: :reduce, reason: "the caller's function" <> _}}
    end

    test "is refused when the function is compiled, where that is asked for" do
      x = Nx.tensor([1, 2, 3])
      message = ~r/reduce of \{3\} s32, \{\} s32 is not done in MLX/

      for {mode, options} <- [silent: [native_fallback: :raise], raise: []] do
        Fallback.with_mode(mode, fn ->
          before = Fallback.count()

          assert_raise RuntimeError, message, fn ->
            Nx.Defn.compile(&subtracted/1, [x], [compiler: Emily.Compiler] ++ options)
          end

          assert Fallback.count() == before
        end)
      end
    end
  end

  describe "errors of a running program" do
    defn solved(a, b), do: Nx.LinAlg.solve(a, b) + 1

    defn solved_in_loop(a, b) do
      {_, b, _} =
        while {a, b, i = 0}, i < 3 do
          {a, Nx.LinAlg.solve(a, b), i + 1}
        end

      b
    end

    defn solved_in_branch(a, b), do: if(Nx.sum(b) > 0, do: Nx.LinAlg.solve(a, b), else: b)

    test "a singular system raises as it does eagerly, and the next call works" do
      singular = Nx.tensor([[1.0, 2.0], [2.0, 4.0]])
      regular = Nx.tensor([[2.0, 1.0], [1.0, 3.0]])
      b = Nx.tensor([1.0, 2.0])

      for fun <- [&solved/2, &solved_in_loop/2, &solved_in_branch/2] do
        eager =
          assert_raise ArgumentError, fn -> Nx.LinAlg.solve(on_emily(singular), on_emily(b)) end

        error = assert_raise ArgumentError, fn -> compiled(fun, [singular, b]) end
        assert error.message == eager.message
        assert mailbox() == []
        assert_compiled(fun, [regular, b], tolerance: 1.0e-5)
      end
    end

    test "types that MLX lacks are refused with the operation's name, where nothing may leave MLX" do
      error =
        assert_raise RuntimeError, fn ->
          compiled(fn x -> Nx.as_type(Nx.add(x, 1), {:c, 128}) end, [Nx.tensor([1.0])])
        end

      assert error.message =~ "as_type of {1} f32"

      # A GPU's program can be built where there is none.
      double = Nx.Defn.debug_expr(&Nx.multiply(&1, 2)).(Nx.template({3}, :f64))

      assert_raise ArgumentError, ~r/multiply of .*\{3\} f64.*no f64 on a GPU/, fn ->
        Emily.Compiler.Builder.build(double, device: :gpu, hooks: [], fallback: :raise)
      end
    end
  end
end
