defmodule Emily.MemoryTest do
  # The allocator's figures are those of the whole VM, so nothing else may run meanwhile.
  use Emily.BackendCase, async: false

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
