defmodule Emily.CompilerTest do
  use Emily.BackendCase, async: true

  doctest Emily.Compiler

  import Nx.Defn
  import Emily.Observe

  defn loop(x) do
    {x, _} =
      while {x, i = 0}, i < 5 do
        {x * 2 + Nx.tensor([1, 1]), i + 1}
      end

    if Nx.sum(x) > 10, do: x, else: -x
  end

  defn loss(x), do: Nx.sum(Nx.sigmoid(x) * Nx.iota({3}))

  test "results live on Emily.Backend, whatever the arguments and the default" do
    add = Nx.Defn.jit(&Nx.add/2, compiler: Emily.Compiler)
    x = Nx.tensor([1, 2])

    assert_equal(add.(x, 3), Nx.add(x, 3))
    assert_equal(add.(on_emily(x), x), Nx.add(x, x))
    assert elem(Nx.default_backend(), 0) == Nx.BinaryBackend
  end

  test "an argument that is returned lives there too" do
    identity = Nx.Defn.jit(fn x -> {x, Nx.tensor(1)} end, compiler: Emily.Compiler)
    x = Nx.tensor([1, 2])
    assert_equal(identity.(x), {x, Nx.tensor(1)})
  end

  test "loops, branches and gradients" do
    x = Nx.tensor([1, 2])
    assert_equal(Nx.Defn.jit_apply(&loop/1, [x], compiler: Emily.Compiler), loop(x))

    y = Nx.tensor([0.5, -1.0, 2.0])
    gradient = Nx.Defn.jit(fn y -> Nx.Defn.grad(y, &loss/1) end, compiler: Emily.Compiler)
    assert_equal(gradient.(y), Nx.Defn.grad(y, &loss/1))
  end

  test "compile, templates and containers" do
    fun = fn %{a: a}, {b, c} -> %{sum: Nx.add(a, b), product: Nx.multiply(b, c)} end
    t = Nx.template({2}, :f32)
    compiled = Nx.Defn.compile(fun, [%{a: t}, {t, t}], compiler: Emily.Compiler)

    [a, b, c] = for n <- 1..3, do: Nx.tensor([n, n + 1], type: :f32)
    assert %{sum: sum, product: product} = compiled.(%{a: a}, {b, c})
    assert_equal(sum, Nx.add(a, b))
    assert_equal(product, Nx.multiply(b, c))
  end

  test "to_backend names the backend and the device" do
    assert Nx.Defn.to_backend(compiler: Emily.Compiler, device: :cpu) ==
             {Emily.Backend, device: :cpu}

    assert Nx.Defn.to_backend(compiler: Emily.Compiler) ==
             {Emily.Backend, device: Emily.Native.default_device()}
  end

  test "a device that is not there is refused" do
    assert_raise ArgumentError, ~r/:device must be/, fn ->
      Nx.Defn.jit_apply(&Nx.add/2, [1, 2], compiler: Emily.Compiler, device: :tpu)
    end
  end

  test "hooks run" do
    test = self()

    fun = fn x ->
      observe(Nx.add(x, 1), :seen, fn t -> send(test, {:seen, Nx.to_number(t)}) end)
    end

    assert Nx.to_number(Nx.Defn.jit_apply(fun, [1], compiler: Emily.Compiler)) == 2
    assert_received {:seen, 2}
  end

  test "a serving runs its partitions" do
    serving =
      Nx.Serving.new(fn opts -> Nx.Defn.jit(&Nx.multiply(&1, 2), opts) end,
        compiler: Emily.Compiler
      )

    batch = Nx.Batch.stack([Nx.tensor([1, 2]), Nx.tensor([3, 4])])
    assert_equal(Nx.Serving.run(serving, batch), Nx.tensor([[2, 4], [6, 8]]))

    partitions = Emily.Compiler.__partitions_options__(max_concurrency: 2)

    assert for(p <- partitions, do: Keyword.delete(p, :device)) ==
             [[partition: 0, max_concurrency: 2], [partition: 1, max_concurrency: 2]]
  end
end
