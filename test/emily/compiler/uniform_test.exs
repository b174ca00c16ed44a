Code.require_file("../../native/support/settled_memory.exs", __DIR__)

defmodule Emily.Compiler.UniformTest do
  # A tensor with one number everywhere is that number for elementwise operations. Alone, since it counts memory.
  use Emily.CompilerCase, async: false

  import Nx.Defn

  @x [[1.5, -2.0, 0.0], [-0.0, 3.0, :nan]]

  defn differentiated(x) do
    grad(x, fn x ->
      y = custom_grad(Nx.max(x, 0), [x], &[Nx.select(Nx.greater(x, 0), &1, Nx.broadcast(0, &1))])
      Nx.sum(y * y)
    end)
  end

  defp operations(fun, args) do
    :telemetry.attach("uniform", [:emily, :compile, :stop], &Emily.Telemetry.echo/4, self())
    compiled(fun, args, cache: false)
    assert_received {_, %{operations: operations}, _}
    operations
  after
    :telemetry.detach("uniform")
  end

  for name <-
        [:add, :subtract, :multiply, :divide, :min, :max] ++
          [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] do
    test "#{name} of numbers at either side, of all types" do
      for type <- [:f32, :f16, :s32, :u8], number <- [2, 0, -1.5], first? <- [true, false] do
        with_number = fn make ->
          fn x ->
            pair = [x, make.(x)]
            apply(Nx, unquote(name), if(first?, do: Enum.reverse(pair), else: pair))
          end
        end

        everywhere = with_number.(&Nx.broadcast(number, &1))
        once = with_number.(fn _ -> Nx.tensor(number) end)
        x = if type in [:s32, :u8], do: [[1, 2, 9], [4, 3, 5]], else: @x
        x = Nx.tensor(x, type: type)
        assert_compiled(everywhere, [x])
        assert operations(everywhere, [x]) <= operations(once, [x])
      end
    end
  end

  test "a choice between a tensor and a number, or two numbers" do
    x = Nx.tensor(@x)
    assert_compiled(&Nx.select(Nx.greater(&1, 0), &1, Nx.broadcast(-1, &1)), [x])
    assert_compiled(&Nx.select(Nx.greater(&1, 0), Nx.broadcast(7, &1), &1), [x])
    two = &Nx.select(Nx.greater(&1, 0), Nx.broadcast(7, &1), Nx.broadcast(-1, &1))
    assert_compiled(two, [x])
    assert_compiled(&differentiated/1, [x])
  end

  test "what has the result's shape from a number only stays a tensor" do
    x = Nx.tensor([1.0, 2.0, 3.0])
    assert_compiled(&Nx.add(&1, Nx.broadcast(2.0, {4, 3})), [x])
    assert_compiled(&Nx.select(Nx.broadcast(1, {4, 3}), &1, Nx.broadcast(2.0, {4, 3})), [x])
    assert_compiled(fn x -> {Nx.add(Nx.broadcast(2.0, {2}), Nx.broadcast(1.0, {2})), x} end, [x])
    named = Nx.tensor([1.0, 2.0], names: [:a])
    assert_compiled(&Nx.multiply(&1, Nx.broadcast(2.0, {2}, names: [:a])), [named])
    vectorized = Nx.vectorize(Nx.tensor(@x), :rows)
    assert_compiled(&Nx.multiply(&1, Nx.broadcast(2.0, {3})), [vectorized])
  end

  test "no memory is filled with a number" do
    x = Nx.iota({1024, 1024}, type: :f32, backend: {Emily.Backend, device: :cpu})
    Emily.eval(x)
    fun = &Nx.select(Nx.greater(&1, 5), &1, Nx.broadcast(0, &1))
    size = Nx.byte_size(x)

    # The result takes the place of what was given, on a CPU.
    {result, bytes} =
      SettledMemory.peak(fn ->
        tap(compiled(fun, [x], donate: [0], device: :cpu), &Emily.eval/1)
      end)

    assert Nx.to_number(result[0][7]) == 7.0
    assert bytes < 0.5 * size
  end
end
