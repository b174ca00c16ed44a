defmodule Emily.FallbackTest do
  use Emily.BackendCase, async: false

  import ExUnit.CaptureLog
  require Logger

  doctest Emily.Fallback

  defp reduce(x), do: Nx.reduce(x, 0, fn x, acc -> Nx.subtract(acc, x) end)

  # The rest of the suite forbids fallbacks.
  setup do
    mode = Application.fetch_env!(:emily, :fallback)
    Application.put_env(:emily, :fallback, :silent)
    on_exit(fn -> Application.put_env(:emily, :fallback, mode) end)
    %{x: Nx.tensor([1, 2, 3], backend: Emily.Backend)}
  end

  test "reduce and window_reduce compute on the caller's function", %{x: x} do
    assert_equal(reduce(x), Nx.tensor(-6))

    # BinaryBackend hands window_reduce's function numbers.
    window = Nx.window_reduce(x, 0, {2}, fn x, acc -> Nx.subtract(acc, x) end)
    assert_equal(window, Nx.tensor([-3, -5]))
  end

  test "the function may close over a tensor of Emily's", %{x: x} do
    two = Nx.tensor(2, backend: Emily.Backend)
    sum = Nx.reduce(x, 0, fn x, acc -> Nx.add(acc, Nx.multiply(x, two)) end)
    assert_equal(sum, Nx.tensor(12))
  end

  @tag :f64
  test "it works where Emily is the default backend", %{x: x} do
    Nx.default_backend(Emily.Backend)
    assert Nx.to_number(reduce(x)) == -6
    assert Nx.default_backend() == {Emily.Backend, Emily.Backend.init([])}

    conv = Nx.conv(Nx.iota({1, 1, 4}, type: :f64), Nx.iota({1, 1, 2}, type: :f64))
    assert Nx.to_flat_list(conv) == [1.0, 2.0, 3.0]
  end

  test "it is counted and reported", %{x: x} do
    test = self()
    name = "fallback-#{inspect(test)}"
    events = for stage <- [:start, :stop], do: [:emily, :fallback, stage]

    :telemetry.attach_many(
      name,
      events,
      fn event, measurements, metadata, _ ->
        if self() == test, do: send(test, {event, measurements, metadata})
      end,
      nil
    )

    before = Emily.Fallback.count()
    reduce(x)
    assert Emily.Fallback.count() > before

    assert_received {[:emily, :fallback, :start], _, %{op: :reduce, shapes: [{3}, {}]}}
    assert_received {[:emily, :fallback, :stop], %{duration: _}, metadata}
    assert metadata.types == [{:s, 32}, {:s, 32}]
    assert metadata.reason =~ "the caller's function"
    :telemetry.detach(name)
  end

  test "what runs in MLX is not counted, nor are Nx's own compositions" do
    Emily.Fallback.with_mode(:raise, fn ->
      x = Nx.iota({3, 4}, type: :f32, backend: Emily.Backend)
      Nx.top_k(x, k: 2)
      Nx.all_close(x, x)
      Nx.LinAlg.norm(x)
      Nx.variance(x)
    end)
  end

  test "a warning names the operation", %{x: x} do
    log = capture_log(fn -> Emily.Fallback.with_mode(:warn, fn -> reduce(x) end) end)
    assert log =~ "reduce of {3} s32, {} s32 is not done in MLX"
  end

  test "raise raises, for this process only", %{x: x} do
    Emily.Fallback.with_mode(:raise, fn ->
      assert_raise RuntimeError, ~r/reduce of \{3\} s32/, fn -> reduce(x) end
      assert Task.await(Task.async(fn -> Nx.to_number(reduce(x)) end), :infinity) == -6
    end)

    assert Nx.to_number(reduce(x)) == -6
  end

  test "modes nest", %{x: x} do
    Emily.Fallback.with_mode(:raise, fn ->
      assert Emily.Fallback.with_mode(:silent, fn -> Nx.to_number(reduce(x)) end) == -6
      assert Emily.Fallback.mode() == :raise
    end)

    assert Emily.Fallback.mode() == :silent
  end

  test "what the function raises reaches the caller", %{x: x} do
    assert_raise RuntimeError, "no", fn -> Nx.reduce(x, 0, fn _, _ -> raise "no" end) end
    assert elem(Nx.default_backend(), 0) == Nx.BinaryBackend
  end
end
