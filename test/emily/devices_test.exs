defmodule Emily.DevicesTest do
  # Devices by their numbers. A card behind the first is not there where this runs: tensors that say so stand for it.
  use Emily.BackendCase, async: true

  alias Emily.{Device, Host}

  @cards length(Device.cards())

  test "names of devices" do
    assert Device.normal(:cpu) == {:ok, :cpu}
    assert Device.normal({:cpu, 0}) == {:ok, :cpu}
    assert Device.normal(:gpu) == {:ok, :gpu}
    assert Device.normal({:gpu, 0}) == {:ok, :gpu}
    assert Device.normal({:gpu, 3}) == {:ok, {:gpu, 3}}

    for other <- [nil, :tpu, {:cpu, 1}, {:gpu, -1}, {:gpu, 1.0}, {:gpu, 1, 2}, "gpu", []],
        do: assert(Device.normal(other) == :error)

    assert Enum.map([:cpu, :gpu, {:gpu, 1}, :host], &Device.name/1) == ~w(cpu gpu gpu:1 host)
  end

  test "the first of a kind has two names" do
    assert Emily.Backend.init(device: {:cpu, 0}) == [device: :cpu]
    assert Nx.tensor(1, backend: {Emily.Backend, device: {:cpu, 0}}).data.device == :cpu
    assert Emily.Stream.new({:cpu, 0}).device == :cpu

    sum = Nx.Defn.jit(&Nx.add/2, compiler: Emily.Compiler, device: {:cpu, 0})
    assert sum.(1, 2).data.device == :cpu
  end

  test "a card that is not there is refused with what there is" do
    missing = {:gpu, @cards + 1}

    message =
      if @cards == 0,
        do: ~r/this MLX has no GPU.*EMILY_MLX=cuda12/,
        else: ~r/there is no #{Regex.escape(inspect(missing))}; this machine has :cpu, :gpu/

    for call <- [
          fn -> Nx.tensor(1, backend: {Emily.Backend, device: missing}) end,
          fn -> Nx.backend_copy(Nx.tensor(1), {Emily.Backend, device: missing}) end,
          fn -> Nx.default_backend({Emily.Backend, device: missing}) end,
          fn ->
            Nx.Defn.jit_apply(&Nx.negate/1, [1], compiler: Emily.Compiler, device: missing)
          end,
          fn -> Emily.Stream.new(missing) end
        ],
        do: assert_raise(ArgumentError, message, call)
  end

  test "an operation runs on a GPU before the CPU, and of two on the first" do
    assert Device.of_both(:cpu, :cpu) == :cpu
    assert Device.of_both(:cpu, {:gpu, 1}) == {:gpu, 1}
    assert Device.of_both({:gpu, 1}, :cpu) == {:gpu, 1}
    assert Device.of_both({:gpu, 1}, :gpu) == {:gpu, 1}
    assert Device.of_both(:gpu, {:gpu, 1}) == :gpu

    on = fn device -> %{Nx.tensor(1) | data: %Emily.Backend{ref: make_ref(), device: device}} end
    assert Host.device([on.(:cpu), on.({:gpu, 1}), on.(:gpu)]) == {:gpu, 1}
    assert Host.device([on.(:gpu), [on.({:gpu, 1})]]) == :gpu
    assert Host.device([on.(:cpu)]) == :cpu
  end

  test "f64 is refused on every card" do
    for device <- [:gpu, {:gpu, 1}],
        do:
          assert_raise(ArgumentError, ~r/no f64 on a GPU/, fn ->
            Emily.Backend.refuse_f64({:f, 64}, device)
          end)

    assert Emily.Backend.refuse_f64({:f, 64}, :cpu) == :ok
  end

  describe "partitions of a serving" do
    defp partitions(opts, cards) do
      options = %{device: opts[:device] || :gpu, max_concurrency: opts[:max_concurrency] || 1}

      for opts <- Emily.Compiler.partitions(opts, options, cards),
          do: {opts[:device], opts[:partition]}
    end

    test "go round among the cards" do
      cards = [:gpu, {:gpu, 1}]
      assert partitions([], cards) == [{:gpu, 0}]
      assert partitions([max_concurrency: 2], cards) == [{:gpu, 0}, {{:gpu, 1}, 1}]
      assert partitions([max_concurrency: 3], cards) == [{:gpu, 0}, {{:gpu, 1}, 1}, {:gpu, 2}]
      assert partitions([max_concurrency: 2], [:gpu]) == [{:gpu, 0}, {:gpu, 1}]
      assert partitions([device: :gpu, max_concurrency: 2], cards) == [{:gpu, 0}, {{:gpu, 1}, 1}]
    end

    test "stay on a card that is named, and on the CPU" do
      assert partitions([device: {:gpu, 1}, max_concurrency: 2], [:gpu, {:gpu, 1}]) ==
               [{{:gpu, 1}, 0}, {{:gpu, 1}, 1}]

      assert partitions([device: :cpu, max_concurrency: 2], []) == [{:cpu, 0}, {:cpu, 1}]

      assert Emily.Compiler.__partitions_options__(
               device: :cpu,
               max_concurrency: 2,
               compiler: Emily.Compiler
             ) == [
               [partition: 0, device: :cpu, max_concurrency: 2, compiler: Emily.Compiler],
               [partition: 1, device: :cpu, max_concurrency: 2, compiler: Emily.Compiler]
             ]
    end
  end

  test "what goes from card to card is copied, whatever its type" do
    for type <- [:u8, :s64, :f16, :bf16, :f32, :c64], shape <- [{}, {1}, {3, 4}] do
      x = Nx.iota(shape, type: type, backend: Emily.Backend) |> Nx.add(1)
      ref = Nx.transpose(x).data.ref
      [copy] = Emily.Native.run([Emily.Backend.copy(ref)])
      assert Emily.Native.dtype(copy) == Emily.Native.dtype(ref)
      assert Emily.Native.to_binary(copy) == Nx.to_binary(Nx.transpose(x))
      refute copy == ref
    end
  end

  # On the machine with cards; bench/gpu/cards.exs has more.
  if @cards > 1 do
    test "the second card computes, and tensors go from card to card" do
      x = Nx.iota({5, 7}, type: :f32, backend: {Emily.Backend, device: {:gpu, 1}})
      y = x |> Nx.multiply(2) |> Nx.backend_transfer({Emily.Backend, device: :gpu})
      assert {x.data.device, y.data.device} == {{:gpu, 1}, :gpu}
      expected = Nx.multiply(Nx.iota({5, 7}, type: :f32, backend: Nx.BinaryBackend), 3)
      assert Nx.backend_copy(Nx.add(x, y), Nx.BinaryBackend) == expected
      assert Nx.add(x, y).data.device == {:gpu, 1}
    end
  end
end
