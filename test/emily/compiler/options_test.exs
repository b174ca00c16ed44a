defmodule Emily.Compiler.OptionsTest do
  # Options, arguments, templates and callers of Emily.Compiler.
  use Emily.CompilerCase, async: true

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
      assert capture_log(fn -> compiled(fun, [1]) end) == ""
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
