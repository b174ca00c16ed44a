defmodule Emily.TelemetryTest do
  # Handlers hear the events of every process.
  use Emily.BackendCase, async: false

  import Emily.Fallback, only: [with_mode: 2]

  setup do
    # The rest of the suite forbids fallbacks.
    mode = Application.fetch_env!(:emily, :fallback)
    Application.put_env(:emily, :fallback, :silent)
    on_exit(fn -> Application.put_env(:emily, :fallback, mode) end)
  end

  doctest Emily.Telemetry

  defp listen(events, fun) do
    :telemetry.attach_many("telemetry-test", events, &Emily.Telemetry.echo/4, self())
    fun.()
  after
    :telemetry.detach("telemetry-test")
  end

  defp span(name), do: for(stage <- [:start, :stop, :exception], do: [:emily, name, stage])

  describe "an evaluation" do
    # A GPU's numbers are copied by each read.
    @tag :cpu
    test "is reported once, with the time it took" do
      t = Nx.iota({100, 100}, type: :f32, backend: Emily.Backend)
      product = t |> Nx.dot(t) |> Nx.dot(t)
      before = System.monotonic_time()

      listen([[:emily, :evaluation]], fn ->
        Nx.to_binary(product)
        Nx.to_binary(product)
      end)

      longest = System.monotonic_time() - before

      assert_received {[:emily, :evaluation], %{duration: duration, bytes: 40_000}, metadata}
      assert duration > 0 and duration <= longest

      assert metadata == %{
               shape: {100, 100},
               type: {:f, 32},
               device: Emily.Native.default_device()
             }

      refute_received {[:emily, :evaluation], _, _}
    end

    test "is one of what is read, and of a transfer" do
      t = Nx.iota({1000}, type: :s32, backend: Emily.Backend)

      listen([[:emily, :evaluation]], fn ->
        Nx.to_binary(Nx.add(t, 1), limit: 3)
        Nx.backend_transfer(Nx.add(t, 2), Nx.BinaryBackend)
      end)

      assert_received {[:emily, :evaluation], %{bytes: 12}, %{shape: {1000}}}
      assert_received {[:emily, :evaluation], %{bytes: 4000}, %{shape: {1000}}}
    end
  end

  describe "a reading" do
    test "is a span, of what is computed already too" do
      t = Nx.tensor([[1, 2, 3]], type: :s16, backend: Emily.Backend)

      listen(span(:to_binary), fn ->
        Nx.to_binary(t)
        Nx.to_binary(Nx.add(t, 1), limit: 2)
        Emily.to_binary(t.data.ref)
      end)

      for bytes <- [6, 4, 6] do
        assert_received {[:emily, :to_binary, :start], %{system_time: _}, start}
        assert %{shape: {1, 3}, type: {:s, 16}} = start
        assert_received {[:emily, :to_binary, :stop], %{duration: _, bytes: ^bytes}, stop}
        assert %{shape: {1, 3}, type: {:s, 16}} = stop
      end

      refute_received {[:emily, :to_binary, _], _, _}
    end

    test "that fails is an exception" do
      t = Nx.broadcast(Nx.tensor(1.0, backend: Emily.Backend), {1_000_000, 1_000_000})
      listen(span(:to_binary), fn -> assert_raise(ArgumentError, fn -> Nx.to_binary(t) end) end)
      assert_received {[:emily, :to_binary, :exception], %{duration: _}, %{kind: :error}}
    end
  end

  test "a call of Emily.eval/1 is a span" do
    t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
    listen(span(:eval), fn -> Emily.eval([Nx.add(t, 1), {t, Nx.tensor(1)}]) end)
    assert_received {[:emily, :eval, :start], %{system_time: _}, %{arrays: 2}}
    assert_received {[:emily, :eval, :stop], %{duration: _}, %{arrays: 2}}
  end

  test "figures of the memory are an event" do
    listen([[:emily, :memory, :stats]], fn -> assert Emily.Telemetry.memory_stats() == :ok end)
    assert_received {[:emily, :memory, :stats], %{active: _, peak: _, cache: _} = bytes, metadata}
    assert {map_size(bytes), metadata} == {3, %{}}
  end

  describe "a fallback" do
    test "is a span" do
      t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
      listen(span(:fallback), fn -> Nx.reduce(t, 0, &Nx.subtract/2) end)

      assert_received {[:emily, :fallback, :start], %{system_time: _}, %{op: :reduce}}
      assert_received {[:emily, :fallback, :stop], %{duration: _}, %{types: [{:s, 32}, {:s, 32}]}}
    end

    test "that raises says what and why" do
      t = Nx.tensor([1, 2, 3], backend: Emily.Backend)

      listen(span(:fallback), fn ->
        assert_raise RuntimeError, fn -> Nx.reduce(t, 0, fn _, _ -> raise "no" end) end
      end)

      assert_received {[:emily, :fallback, :exception], %{duration: _}, metadata}
      assert %{kind: :error, reason: %RuntimeError{message: "no"}, stacktrace: [_ | _]} = metadata
      assert metadata.fallback_reason =~ "the caller's function"
    end
  end

  describe "a compilation" do
    test "is a span, which counts operations and calls into Elixir" do
      fun = fn t -> Nx.reduce(Nx.sin(t), 0.0, &Nx.subtract/2) end
      template = Nx.template({3}, :f32)

      listen(span(:compile), fn -> Nx.Defn.compile(fun, [template], compiler: Emily.Compiler) end)

      device = Emily.Native.default_device()

      assert_received {[:emily, :compile, :start], %{system_time: _}, %{function: ^fun} = start}
      assert start.device == device

      assert_received {[:emily, :compile, :stop], measurements,
                       %{function: ^fun, device: ^device}}

      assert %{duration: _, operations: operations, calls: 1} = measurements
      assert operations >= 1
    end

    test "is none where the program is kept" do
      fun = fn t -> Nx.multiply(t, 17) end
      t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
      jitted = Nx.Defn.jit(fun, compiler: Emily.Compiler)

      listen(span(:compile), fn -> for _ <- 1..3, do: jitted.(t) end)

      assert_received {[:emily, :compile, :stop], _, %{function: ^fun}}
      refute_received {[:emily, :compile, :stop], _, %{function: ^fun}}
    end

    test "that raises is an exception" do
      fun = fn t -> Nx.reduce(t, 0, &Nx.subtract/2) end

      listen(span(:compile), fn ->
        assert_raise RuntimeError, ~r/reduce/, fn ->
          with_mode(:raise, fn ->
            Nx.Defn.compile(fun, [Nx.template({3}, :s32)], compiler: Emily.Compiler)
          end)
        end
      end)

      assert_received {[:emily, :compile, :exception], %{duration: _},
                       %{function: ^fun} = metadata}

      assert %{kind: :error, reason: %RuntimeError{}, stacktrace: [_ | _]} = metadata
    end
  end

  test "memory is what MLX says it has" do
    held = Nx.iota({1000, 1000}, type: :f32, backend: Emily.Backend) |> Nx.add(1)
    Nx.to_binary(held)
    listen([[:emily, :memory]], fn -> assert Emily.Telemetry.memory() == :ok end)

    assert_received {[:emily, :memory], bytes, metadata}
    assert metadata == %{}
    assert bytes.active >= 4_000_000 and bytes.peak >= bytes.active
    assert Nx.shape(held) == {1000, 1000}
  end
end
