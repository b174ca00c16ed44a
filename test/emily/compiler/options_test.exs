defmodule Emily.Compiler.OptionsTest do
  # Options, arguments, templates and callers of Emily.Compiler.
  use Emily.CompilerCase, async: true

  import Emily.Observe
  import ExUnit.CaptureLog

  describe "options" do
    test "that are unknown are refused, each by its name" do
      for option <- [devices: :cpu, hook: %{}, native_callback: true, lazy_transfers: :always] do
        {name, _} = option

        assert_raise ArgumentError, ~r/unknown option #{inspect(name)}; it takes \[:device/, fn ->
          compiled(&Nx.add/2, [1, 2], [option])
        end
      end
    end

    test "do not take what they cannot honour" do
      for option <- [
            device: :tpu,
            hooks: [:a],
            hooks: self(),
            hooks: %{seen: :function},
            hooks: [seen: fn -> :ok end],
            cache: nil,
            cache: "file",
            native_fallback: :silent,
            native_fallback: true,
            native: nil,
            native: :yes,
            fuse: :all,
            max_concurrency: 0,
            max_concurrency: 1.0,
            max_concurrency: nil,
            partition: -1,
            partition: :first,
            garbage_collect: nil,
            garbage_collect: 1,
            debug_options: true,
            debug_options: [level: :info],
            debug_options: [log: :loud]
          ] do
        {name, _} = option

        error =
          assert_raise ArgumentError, fn -> compiled(&Nx.add/2, [1, 2], [option]) end

        assert error.message =~ inspect(name), "#{inspect(option)}: #{error.message}"
      end
    end

    test "that Axon and Nx.Serving forward are left alone" do
      options = [mode: :train, seed: 1, debug: false, print_values: false, raise_on_none: true]
      options = options ++ [global_layer_options: [], strict?: true, batch_keys: [:default]]
      assert_equal(compiled(&Nx.add/2, [1, 2], options), Nx.tensor(3))
    end

    test "debug_options log compilations and hits" do
      fun = fn x -> Nx.add(x, 41) end
      run = fn -> compiled(fun, [1], debug_options: [log: :warning]) end
      assert capture_log(run) =~ ~r/warning.*Emily.Compiler: #Function.* compiled/
      assert capture_log(run) =~ ~r/warning.*Emily.Compiler: #Function.* found/
      refute capture_log(fn -> compiled(fun, [1]) end) =~ "Emily.Compiler: #Function"
    end

    # Handlers run in the process that compiles.
    def compiled_event(_event, counts, metadata, test) do
      if self() == test, do: send(test, {counts, metadata})
    end

    test "compilations are reported by telemetry" do
      test = self()
      fun = fn x -> Nx.add(Nx.exp(x), 1) end

      :telemetry.attach(
        {__MODULE__, test},
        [:emily, :compile, :stop],
        &__MODULE__.compiled_event/4,
        test
      )

      compiled(fun, [1.0], device: :cpu)
      compiled(fun, [1.0], device: :cpu)
      :telemetry.detach({__MODULE__, test})

      assert [{%{operations: operations, calls: 0, duration: _}, %{device: :cpu, function: ^fun}}] =
               mailbox()

      assert operations > 0
    end
  end

  describe "native: false" do
    import Nx.Defn

    defn looped(x) do
      {x, _} =
        while {x, i = 0}, i < 3 do
          {Nx.exp(x) / 3, i + 1}
        end

      if Nx.sum(x) > 1, do: x, else: -x
    end

    test "evaluates operation by operation, with the same results" do
      x = Nx.tensor([[0.5, 1.0], [-2.0, 0.25]])

      for fun <- [&looped/1, &{Nx.sum(&1), Nx.sort(&1)}, fn x -> %{a: Nx.LinAlg.norm(x)} end],
          do: assert_native_false(fun, x)
    end

    defp assert_native_false(fun, x) do
      [actual, expected] =
        for result <- [compiled(fun, [x], native: false), evaluated(fun, [x])],
            do: Nx.Defn.Composite.flatten_list([result])

      assert length(actual) == length(expected)
      for {a, b} <- Enum.zip(actual, expected), do: assert_equal(a, b)
    end

    test "makes no program, and hears hooks" do
      test = self()
      fun = fn x -> observe(Nx.add(x, 1), :seen, &send(test, {:hooked, &1})) end

      :telemetry.attach(
        {__MODULE__, test},
        [:emily, :compile, :stop],
        &__MODULE__.compiled_event/4,
        test
      )

      result = compiled(fun, [1], native: false)
      :telemetry.detach({__MODULE__, test})
      assert_equal(result, Nx.tensor(2))
      assert result.data.__struct__ == Emily.Backend
      assert [{%{operations: 0}, _}, {:hooked, seen}] = mailbox()
      assert Nx.to_number(seen) == 2
    end

    test "raises for what leaves MLX where native_fallback says so" do
      fun = fn x -> Nx.reduce(x, 0, &Nx.subtract/2) end
      x = Nx.tensor([1, 5, 2])

      Emily.Fallback.with_mode(:silent, fn ->
        assert_equal(compiled(fun, [x], native: false), evaluated(fun, [x]))

        assert_raise RuntimeError, ~r/reduce of \{3\} s32/, fn ->
          compiled(fun, [x], native: false, native_fallback: :raise)
        end

        warned = fn -> compiled(fun, [x], native: false, native_fallback: :warn) end
        assert capture_log(warned) =~ "reduce of {3} s32"
      end)
    end
  end

  describe "native_fallback" do
    test "evaluates, with a warning or without, or raises" do
      for {fun, x, says} <- [
            {fn x -> Nx.reduce(x, 0, &Nx.subtract/2) end, Nx.tensor([1, 5, 2]),
             "reduce of {3} s32"},
            {fn x -> Nx.as_type(Nx.multiply(x, 2), :f32) end, Nx.tensor([1.0], type: :f8), "f8"}
          ] do
        expected = evaluated(fun, [x])

        Emily.Fallback.with_mode(:silent, fn ->
          run = fn option ->
            assert_equal(compiled(fun, [x], native_fallback: option, cache: false), expected)
          end

          for option <- [:eval, :evaluate],
              do: refute(capture_log(fn -> run.(option) end) =~ "is not done in MLX")

          log = capture_log(fn -> run.(:warn) end)
          assert log =~ "[warning]" and log =~ says and log =~ "is not done in MLX"
          assert_raise RuntimeError, ~r/#{Regex.escape(says)}/, fn -> run.(:raise) end
        end)
      end
    end
  end

  test "fuse takes loops and conditions" do
    x = Nx.tensor([[0.5, 1.0], [-2.0, 0.25]])
    expected = Nx.Defn.jit_apply(&looped/1, [x], compiler: Emily.Compiler, fuse: false)

    for fuse <- [true, nil],
        do: assert_equal(compiled(&looped/1, [x], fuse: fuse), Nx.backend_copy(expected))
  end

  describe "arguments" do
    test "that the function does not read are not loaded" do
      loading = fn tensor -> {tensor, fn -> send(self(), :loaded) && tensor end} end
      {a, load_a} = loading.(Nx.tensor([1, 2]))
      {b, _} = loading.(Nx.tensor(1.0))
      unread = fn -> flunk("nobody reads this one") end

      [run] =
        for vars <- [[Nx.to_template(a), Nx.to_template(b)]] do
          vars = for {t, i} <- Enum.with_index(vars), do: Nx.Defn.Expr.parameter(t, :root, i)
          fun = fn [x, _y] -> Nx.multiply(x, 3) end
          Emily.Compiler.__compile__(fun, vars, fun, [])
        end

      assert [result] = run.([[load_a, unread]])
      assert_equal(result, Nx.tensor([3, 6]))
      assert mailbox() == [:loaded]
    end

    test "of a lazy container are loaded where they are read" do
      defmodule Loaded do
        defstruct [:read, :unread]

        defimpl Nx.LazyContainer do
          def traverse(%{read: read, unread: unread}, acc, fun) do
            {read, acc} = fun.(Nx.template({2}, :s32), fn -> read.() end, acc)
            {unread, acc} = fun.(Nx.template({2}, :s32), fn -> unread.() end, acc)
            {%{read: read, unread: unread}, acc}
          end
        end
      end

      lazy =
        struct!(Loaded,
          read: fn -> Nx.tensor([5, 6]) end,
          unread: fn -> flunk("nobody reads this one") end
        )

      assert_equal(compiled(fn %{read: x} -> Nx.add(x, 1) end, [lazy]), Nx.tensor([6, 7]))
    end

    test "of other shapes and types than the template's are refused" do
      run = Nx.Defn.compile(&Nx.add/2, [Nx.template({2}, :s32), 1], compiler: Emily.Compiler)
      assert_equal(run.(Nx.tensor([1, 2]), 1), Nx.tensor([2, 3]))

      for {args, error} <- [
            {[Nx.tensor([1, 2, 3]), 1], ArgumentError},
            {[Nx.tensor([1.0, 2.0]), 1], ArgumentError},
            {[{Nx.tensor([1, 2]), 1}, 1], ArgumentError},
            {[Nx.tensor([1, 2])], BadArityError}
          ],
          do: assert_raise(error, fn -> apply(run, args) end)
    end

    test "that are no tensors are refused" do
      for wrong <- [:atom, "text", self()] do
        assert_raise Protocol.UndefinedError, fn -> compiled(&Nx.add/2, [wrong, 1]) end
      end

      assert_raise ArgumentError, ~r/tensor expression/, fn ->
        Nx.Defn.jit_apply(
          fn x -> compiled(fn y -> Nx.add(y, 1) end, [x], on_conflict: :force) end,
          [1]
        )
      end
    end

    test "names, types and containers come back as Nx says" do
      x = Nx.tensor([[1, 2]], names: [:a, :b], type: :u8)
      assert_compiled(fn x -> %{t: Nx.transpose(x), same: x, n: 3, tuple: {}} end, [x])
      assert_compiled(fn -> Nx.iota({2, 2}, names: [:r, nil]) end, [])

      for type <- all_types(),
          do: assert_compiled(fn x -> {x} end, [Nx.tensor([1, 2], type: type)])
    end

    test "templates of a map, and numbers" do
      run =
        Nx.Defn.compile(fn %{a: a} -> Nx.add(a, 1) end, [%{a: Nx.template({}, :f32)}],
          compiler: Emily.Compiler
        )

      assert_equal(run.(%{a: 1.5}), Nx.tensor(2.5))
    end
  end

  describe "callers" do
    test "may run one compiled function at once" do
      run = Nx.Defn.compile(&slow/1, [{Nx.template({2}, :s64), 0, 0}], compiler: Emily.Compiler)

      for n <- 1..8 do
        Task.async(fn ->
          for i <- 1..10 do
            {sum, _, _} = run.({Nx.tensor([n, i], type: :s64), 0, 50})
            assert_equal(sum, Nx.tensor([n + 50, i + 50], type: :s64))
          end
        end)
      end
      |> Task.await_many(:infinity)
    end

    import Nx.Defn

    defn slow({x, i, n}) do
      while {x, i, n}, i < n do
        {x + 1, i + 1, n}
      end
    end

    test "that are killed do not keep their loops running" do
      run = Nx.Defn.compile(&slow/1, [{Nx.template({3}, :s64), 0, 0}], compiler: Emily.Compiler)
      endless = {Nx.tensor([0, 0, 0], type: :s64), 0, 2_000_000_000}

      # More than may run at once: the last would wait for ever if the killed ones went on.
      for _ <- 1..6 do
        pids = for _ <- 1..60, do: spawn_monitor(fn -> run.(endless) end)
        # They are in their loops, or on their way.
        Process.sleep(20)
        for {pid, _} <- pids, do: Process.exit(pid, :kill)
        for {pid, ref} <- pids, do: assert_receive({:DOWN, ^ref, :process, ^pid, :killed})
      end

      assert {sum, _, _} = run.({Nx.tensor([1, 2, 3], type: :s64), 0, 5})
      assert_equal(sum, Nx.tensor([6, 7, 8], type: :s64))
    end
  end
end
