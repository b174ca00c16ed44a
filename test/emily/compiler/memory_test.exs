Code.require_file("../../native/support/settled_memory.exs", __DIR__)

defmodule Emily.Compiler.MemoryTest do
  # What compiled functions take beyond their arguments. MLX's figures are the whole VM's, so nothing else
  # may run meanwhile.
  use Emily.CompilerCase, async: false

  import Nx.Defn
  alias Emily.Native

  @mb 1_048_576

  # A tensor of MLX's own, computed.
  defp computed(tensor) do
    Native.eval([tensor.data.ref])
    tensor
  end

  defp big(megabytes, type \\ :f32) do
    {_, bits} = Nx.Type.normalize!(type)
    rows = div(megabytes * @mb, 1024 * div(bits, 8))

    {rows, 1024}
    |> Nx.iota(type: type, backend: {Emily.Backend, device: :cpu})
    |> Nx.multiply(1.0e-9)
    |> computed()
  end

  # How far MLX's memory rises above what there is before, and what stays.
  defp rise(fun) do
    before = SettledMemory.active()
    Native.reset_peak_memory()
    result = fun.()
    for t <- Nx.Defn.Composite.flatten_list([result]), do: computed(t)
    memory = Native.memory()
    {memory.peak - before, memory.active - before, result}
  end

  test "weights given to a compiled closure are not copied" do
    weights = big(64)
    x = computed(on_emily(Nx.broadcast(1.0, {1, 1024})))
    templates = [Nx.to_template(weights), Nx.to_template(x)]

    layers = fn w, x ->
      y = Nx.dot(x, Nx.transpose(w))
      Nx.sum(Nx.multiply(y, y))
    end

    run = Nx.Defn.compile(layers, templates, compiler: Emily.Compiler)
    run.(weights, x) |> computed()

    {peak, active, _} = rise(fn -> for(_ <- 1..20, do: run.(weights, x)) |> List.to_tuple() end)
    assert peak < 8 * @mb
    assert active < @mb

    # The same for jit, for containers, and for an argument that a loop hands round.
    {peak, _, _} =
      rise(fn -> compiled(fn %{w: w}, x -> layers.(w, x) end, [%{w: weights}, x]) end)

    assert peak < 8 * @mb

    {peak, _, _} = rise(fn -> compiled(&powers/2, [weights, x]) end)
    assert peak < 8 * @mb

    # What an argument of another backend takes: a copy in each call.
    copied = Nx.backend_copy(weights, Nx.BinaryBackend)
    {peak, _, _} = rise(fn -> run.(copied, x) end)
    assert peak >= 64 * @mb
  end

  defn powers(w, x) do
    {_, _, sum, _} =
      while {w, x, sum = 0.0, i = 0}, i < 5 do
        {w, x, sum + Nx.sum(Nx.dot(x, [1], w, [1])), i + 1}
      end

    sum
  end

  test "an argument that is a result is the same array" do
    weights = big(64)
    {peak, _, {same, _}} = rise(fn -> compiled(fn w -> {w, Nx.sum(w[0])} end, [weights]) end)
    assert same.data.ref |> Native.shape() == {16_384, 1024}
    assert peak < 8 * @mb
  end

  # A decoding loop's state: a cache of keys and values that gets a row in each step, and a hidden state that
  # depends on what the cache holds.
  defn decode(keys, values, x, steps) do
    {keys, values, x, _, _} =
      while {keys, values, x, i = 0, steps}, i < steps do
        keys = Nx.put_slice(keys, [i, 0], x)
        values = Nx.put_slice(values, [i, 0], x * 0.5)
        seen = Nx.slice(keys, [i, 0], [1, 1024]) + Nx.slice(values, [i, 0], [1, 1024])
        {keys, values, Nx.tanh(seen), i + 1, steps}
      end

    {keys, values, x}
  end

  defn decode_with_hook(keys, values, x, steps) do
    {keys, values, x, _, _} =
      while {keys, values, x, i = 0, steps}, i < steps do
        keys = Nx.put_slice(keys, [i, 0], x)
        values = Nx.put_slice(values, [i, 0], x * 0.5)
        seen = Nx.slice(keys, [i, 0], [1, 1024]) + Nx.slice(values, [i, 0], [1, 1024])
        {x, i} = observe({Nx.tanh(seen), i + 1}, :token)
        {keys, values, x, i, steps}
      end

    {keys, values, x}
  end

  defp decoded(fun, steps, options) do
    half = big(32)
    x = computed(on_emily(Nx.broadcast(0.25, {1, 1024})))

    {peak, active, {keys, _values, x}} =
      rise(fn -> compiled(fun, [half, half, x, steps], options) end)

    # x' = tanh(1.5 x), and the last row written is the one before.
    last = Enum.reduce(1..(steps - 1)//1, 0.25, fn _, x -> :math.tanh(1.5 * x) end)
    assert_in_delta Nx.to_number(keys[steps - 1][7]), last, 1.0e-5
    assert_in_delta Nx.to_number(x[0][7]), :math.tanh(1.5 * last), 1.0e-5
    # The arguments are as they were.
    assert_in_delta Nx.to_number(half[0][7]), 7.0e-9, 1.0e-12
    {peak, active}
  end

  defn decode_with_branch(keys, values, x, steps) do
    {keys, values, x, _, _} =
      while {keys, values, x, i = 0, steps}, i < steps do
        keys = Nx.put_slice(keys, [i, 0], x)

        # The condition depends on the updated state, and so does what follows.
        half = if keys[i][0] > 1.0, do: x, else: x * 0.5
        values = Nx.put_slice(values, [i, 0], half)
        seen = Nx.slice(keys, [i, 0], [1, 1024]) + Nx.slice(values, [i, 0], [1, 1024])
        {keys, values, Nx.tanh(seen), i + 1, steps}
      end

    {keys, values, x}
  end

  for {name, fun, hook?} <- [
        {"a loop", :decode, false},
        {"a loop with a condition", :decode_with_branch, false},
        {"a loop with a hook that nobody has a function for", :decode_with_hook, false},
        {"a loop that streams to a hook", :decode_with_hook, true}
      ] do
    test "#{name} updates a big state by put_slice in its place" do
      test = self()
      seen = fn {_x, i} -> send(test, {:seen, Nx.to_number(i)}) end
      options = if unquote(hook?), do: [hooks: %{token: seen}], else: []
      {peak, active} = decoded(Function.capture(__MODULE__, unquote(fun), 4), 100, options)

      # The arguments' 64 MB are copied once, since they are the caller's. A second copy would be 32 MB more.
      assert peak < 72 * @mb
      assert active < 65 * @mb

      assert for({:seen, n} <- mailbox(), do: n) ==
               if(unquote(hook?), do: Enum.to_list(1..100), else: [])
    end
  end
end
