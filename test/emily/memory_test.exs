defmodule Emily.MemoryTest do
  # The allocator's figures are those of the whole VM, so nothing else may run meanwhile.
  use Emily.BackendCase, async: false

  doctest Emily.Memory

  test "figures follow arrays" do
    assert Emily.Memory.stats() |> Map.keys() |> Enum.sort() == [:active, :cache, :peak]
    Emily.Memory.reset_peak()
    before = Emily.Memory.stats()
    x = Nx.iota({1_000_000}, type: :f32, backend: {Emily.Backend, device: :cpu}) |> Nx.add(1)
    Emily.eval(x)
    later = Emily.Memory.stats()
    assert later.active >= before.active + 4_000_000
    assert later.peak >= later.active
    assert Nx.size(x) == 1_000_000
  end

  test "limits are set, and answer the ones before" do
    %{limit: limit} = Emily.Native.memory()
    assert Emily.Memory.set_limit(2_000_000_000) == limit
    assert Emily.Native.memory().limit == 2_000_000_000
    assert Emily.Memory.set_limit(limit) == 2_000_000_000
    before = Emily.Memory.set_cache_limit(1_000_000)
    assert Emily.Memory.set_cache_limit(before) == 1_000_000

    for bytes <- [-1, 1.5, nil, :all, 2 ** 64] do
      assert_raise ArgumentError, ~r"set_limit/1 expects bytes", fn ->
        Emily.Memory.set_limit(bytes)
      end

      assert_raise ArgumentError, ~r"set_cache_limit/1 expects bytes", fn ->
        Emily.Memory.set_cache_limit(bytes)
      end
    end
  end

  test "what is freed is given back" do
    Task.async(fn -> Emily.eval(Nx.add(Nx.iota({500_000}, backend: Emily.Backend), 1)) end)
    |> Task.await(:infinity)

    assert Emily.Memory.clear_cache() == :ok
    # What other references die later is freed later.
    assert Enum.any?(1..500, fn _ ->
             Process.sleep(10)
             Emily.Memory.clear_cache()
             Emily.Memory.stats().cache < 500_000
           end)
  end

  test "memory is back where it began after 10,000 tensors made and dropped" do
    round = fn ->
      x = Nx.iota({1000}, type: :f32, backend: {Emily.Backend, device: :cpu})
      x |> Nx.add(1) |> Nx.multiply(x) |> Nx.sum() |> Nx.to_number()
    end

    active = fn ->
      :erlang.garbage_collect()
      Emily.Native.memory().active
    end

    Task.async(fn -> for(_ <- 1..100, do: round.()) end) |> Task.await(:infinity)
    before = active.()

    for _ <- 1..10 do
      Task.async(fn -> for(_ <- 1..1000, do: round.()) end) |> Task.await(:infinity)
    end

    # The tasks' heaps are gone with the tasks, but references die on their schedulers' time.
    assert Enum.any?(1..3000, fn _ ->
             Process.sleep(20)
             active.() <= before + 100_000
           end)
  end
end
