defmodule Emily.Fast.DispatchTest do
  # On Emily each function is one kernel of MLX, however it is called, and on another backend none.
  use Emily.FastCase, async: false

  alias Emily.Fast

  # The kernels that Emily is asked for while the function runs, in a process of its own since none
  # can trace itself.
  defp kernels(backend, fun) do
    Code.ensure_loaded!(Emily.Lower.Fast)
    :erlang.trace_pattern({Emily.Lower.Fast, :block, 3}, true, [:local])

    task =
      Task.async(fn ->
        Nx.default_backend(backend)
        receive do: (:go -> fun.())
      end)

    :erlang.trace(task.pid, true, [:call])
    send(task.pid, :go)
    Task.await(task, :infinity)
    delivered = :erlang.trace_delivered(task.pid)
    receive do: ({:trace_delivered, _, ^delivered} -> :ok)
    collect([])
  after
    :erlang.trace_pattern({Emily.Lower.Fast, :block, 3}, false, [:local])
  end

  defp collect(found) do
    receive do
      {:trace, _, :call, {Emily.Lower.Fast, :block, [%kernel{} | _]}} -> collect([kernel | found])
    after
      0 -> Enum.reverse(found)
    end
  end

  defp calls(backend) do
    x = Nx.iota({1, 2, 3, 4}, type: :f32, backend: backend)
    w = Nx.tensor([1.0, 2.0, 3.0, 4.0], backend: backend)
    o = Nx.tensor(3, backend: backend)
    f = Nx.tensor([1.0, 0.1], backend: backend)
    s = Nx.tensor([1.0, 2.0], backend: backend)
    m = Nx.iota({3, 3}, type: :f32, backend: backend)
    c = Nx.tensor([[1, 1, 0]], backend: backend)

    [
      {Fast.RMSNorm, &Fast.rms_norm/2, [x, w]},
      {Fast.LayerNorm, &Fast.layer_norm/3, [x, w, w]},
      {Fast.Activation, &Fast.gelu/1, [x]},
      {Fast.Activation, &Fast.gelu(&1, approximation: :tanh), [x]},
      {Fast.Gate, &Fast.swiglu/2, [x, x]},
      {Fast.Gate, &Fast.geglu/2, [x, x]},
      {Fast.RoPE, &Fast.rope(&1, &2, dims: 4), [x, o]},
      {Fast.RoPE, &Fast.rope_with_freqs(&1, &2, &3, dims: 4), [x, o, f]},
      {Fast.Attention, &Fast.scaled_dot_product_attention/3, [x, x, x]},
      {Fast.Attention, &Fast.scaled_dot_product_attention(&1, &1, &1, causal: true), [x]},
      {Fast.Attention, &Fast.scaled_dot_product_attention(&1, &1, &1, sinks: &2), [x, s]},
      {Fast.Attention, &Fast.scaled_dot_product_attention_with_mask(&1, &1, &1, &2), [x, m]},
      {Fast.Attention, &Fast.scaled_dot_product_attention_with_mask(&1, &1, &1, &2, sinks: &3),
       [x, m, s]},
      {Fast.CachedAttention, &Fast.CachedAttention.run(&1, &1, &1, &2, &3, []), [x, c, o]}
    ]
  end

  test "one kernel a call on Emily, eager, traced, and compiled by Emily" do
    for {kernel, fun, args} <- calls(Emily.Backend) do
      assert kernels(Emily.Backend, fn -> apply(fun, args) end) == [kernel]
      assert kernels(Emily.Backend, fn -> Nx.Defn.jit_apply(fun, args) end) == [kernel]

      compiled = fn -> Nx.Defn.jit_apply(fun, args, compiler: Emily.Compiler) end
      assert kernels(Emily.Backend, compiled) == [kernel]
    end
  end

  defp einsum(x), do: Fast.einsum("...ij,...jk,kl->l...", [x, x, x])

  test "einsum is one kernel too, and none on another backend" do
    x = Nx.tensor([[1.0, 2.0], [3.0, 4.0]], backend: Emily.Backend)
    assert kernels(Emily.Backend, fn -> einsum(x) end) == [Fast.Einsum]
    assert kernels(Emily.Backend, fn -> Nx.Defn.jit_apply(&einsum/1, [x]) end) == [Fast.Einsum]

    compiled = fn -> Nx.Defn.jit_apply(&einsum/1, [x], compiler: Emily.Compiler) end
    assert kernels(Emily.Backend, compiled) == [Fast.Einsum]

    x = Nx.backend_copy(x, Nx.BinaryBackend)
    assert kernels(Nx.BinaryBackend, fn -> Nx.Defn.jit_apply(&einsum/1, [x]) end) == []
  end

  test "a gradient runs the forward kernel where its value is used" do
    for {kernel, fun, [x | rest]} <- calls(Emily.Backend) do
      # Only parameters may be tensors of Emily in a trace, so the rest are constants here.
      rest = Enum.map(rest, &Nx.backend_copy(&1, Nx.BinaryBackend))
      loss = fn x -> Nx.sum(Nx.exp(apply(fun, [x | rest]))) end

      assert kernels(Emily.Backend, fn -> Nx.Defn.jit_apply(&Nx.Defn.grad(&1, loss), [x]) end) ==
               [kernel]
    end
  end

  test "none on another backend" do
    for {_, fun, args} <- calls(Nx.BinaryBackend) do
      assert kernels(Nx.BinaryBackend, fn -> apply(fun, args) end) == []
      assert kernels(Nx.BinaryBackend, fn -> Nx.Defn.jit_apply(fun, args) end) == []
    end
  end

  test "nothing leaves MLX" do
    event = [:emily, :fallback, :start]
    :telemetry.attach(__MODULE__, event, &__MODULE__.forward/4, self())
    on_exit(fn -> :telemetry.detach(__MODULE__) end)
    Nx.default_backend(Emily.Backend)

    for {_, fun, args} <- calls(Emily.Backend) do
      apply(fun, args)
      Nx.Defn.jit_apply(fun, args)
    end

    refute_received {:fallback, _}
  end

  # Handlers run in the process that emits.
  def forward(_event, _measurements, metadata, test),
    do: if(self() == test, do: send(test, {:fallback, metadata}))

  test "the table of callbacks of Nx 0.11 is that of the backend" do
    for {name, tensors} <- Emily.Fast.Node.callbacks() do
      assert is_struct(Emily.Fast.Node.kernel(name, []))

      unless function_exported?(Nx, :block, 4),
        do: assert(function_exported?(Emily.Backend, name, tensors + 2))
    end
  end
end
