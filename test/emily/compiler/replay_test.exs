defmodule Emily.Compiler.ReplayTest do
  # Loops whose turns follow on one another in every way that matters where a turn is recorded and run again, as on an
  # NVIDIA GPU: on any device they give what Nx.BinaryBackend does.
  use Emily.CompilerCase, async: true

  import Nx.Defn

  # Everything is new in each turn.
  defn counted(x, n) do
    {x, i, _} = while {x, i = 0, n}, i < n, do: {Nx.cos(x) + i, i + 1, n}
    {x, i}
  end

  # A large array is written over in its place, and read.
  defn cached(x, n) do
    rows = Nx.broadcast(Nx.tensor(0.0), {64, 512})

    while {rows, x, i = 0, n}, i < n do
      rows = Nx.put_slice(rows, [i, 0], Nx.reshape(x, {1, 512}))
      {rows, Nx.sin(x) + rows[[0, 0..0]], i + 1, n}
    end
  end

  # Neither is where it was.
  defn swapped(a, b, n) do
    {a, b, _, _} = while {a, b, i = 0, n}, i < n, do: {b, a + b * 0.5, i + 1, n}
    {a, b}
  end

  # Large ones change places.
  defn turned(a, n) do
    {a, b, _, _} =
      while {a, b = a * 2, i = 0, n}, i < n do
        {Nx.put_slice(b, [0, 0], Nx.reshape(i * 1.0, {1, 1})), a, i + 1, n}
      end

    {a, b}
  end

  # One array is two of the state's, and stays one of them.
  defn shared(a, n) do
    while {a, b = a, i = 0, n}, i < n, do: {a, b + a, i + 1, n}
  end

  # One is a part of another.
  defn part(a, n) do
    {a, b, _, _} = while {a, b = a[[0..3]], i = 0, n}, i < n, do: {a + b[0], a[[0..3]], i + 1, n}
    {a, b}
  end

  # Transposed, so that it does not lie in a row.
  defn transposed(a, n) do
    {a, _, _} = while {a, i = 0, n}, i < n, do: {Nx.transpose(a) + i, i + 1, n}
    a
  end

  # Ends by what is computed.
  defn shrunk(x) do
    while {x, i = 0}, Nx.sum(x) > 100.0, do: {x * 0.75, i + 1}
  end

  defn random(key, n) do
    {_, sum, _, _} =
      while {key, sum = Nx.tensor([0.0, 0.0]), i = 0, n}, i < n do
        {uniform, key} = Nx.Random.uniform(key, shape: {2})
        {key, sum + uniform, i + 1, n}
      end

    sum
  end

  defn doubly(x, n) do
    {x, _, _} =
      while {x, i = 0, n}, i < n do
        {x, _} = while {x, j = 0}, j < 5, do: {Nx.cos(x) + j, j + 1}
        {x, i + 1, n}
      end

    x
  end

  defp row, do: Nx.iota({512}, type: :f32) |> Nx.divide(512)
  defp square, do: Nx.iota({128, 128}, type: :f32)
  defp turns(n), do: Nx.tensor(n, type: :s32)

  for turns <- [0, 1, 2, 3, 4, 5, 30] do
    test "#{turns} turns" do
      n = turns(unquote(turns))
      assert_compiled(&counted/2, [row(), n], tolerance: 1.0e-4)
      assert_compiled(&cached/2, [row(), n], tolerance: 1.0e-4)
      assert_compiled(&swapped/3, [row(), Nx.add(row(), 1), n], tolerance: 1.0e-4)
      assert_compiled(&turned/2, [square(), n])
      assert_compiled(&shared/2, [row(), n], tolerance: 1.0e-4)
      assert_compiled(&part/2, [row(), n], tolerance: 1.0e-4)
      assert_compiled(&transposed/2, [square(), n])
      assert_compiled(&random/2, [Nx.Random.key(5), n], tolerance: 1.0e-4)
      assert_compiled(&doubly/2, [row(), n], tolerance: 1.0e-4)
    end
  end

  # MLX's own operations and Emily's: what MLX queues has names, by which it is told what is to be run again.
  defn mixed(x, n) do
    while {x, i = 0, n}, i < n do
      {Nx.sort(Nx.cos(x) - i * 0.1) |> Nx.cumulative_sum() |> Nx.divide(100) |> Nx.reverse(),
       i + 1, n}
    end
  end

  # Linux alone has what MLX calls taken its way through Emily.
  if :os.type() == {:unix, :linux} and System.get_env("EMILY_KERNELS") != "off" do
    test "turns are recorded, but for the first ones" do
      before = Emily.Native.replayed_turns()
      assert_compiled(&mixed/2, [row(), turns(20)], tolerance: 1.0e-3)
      assert Emily.Native.replayed_turns() - before >= 17
    end
  end

  # MLX has small numbers where the host reads them as long as there is room, elsewhere otherwise.
  test "turns while there are many small numbers" do
    many = for i <- 1..5000, do: Nx.backend_copy(Nx.tensor(i), Emily.Backend)
    assert_compiled(&counted/2, [row(), turns(9)], tolerance: 1.0e-4)
    assert many |> Enum.map(&Nx.to_number/1) |> Enum.sum() == 12_502_500
  end

  test "a loop that ends by what it computes" do
    assert_compiled(&shrunk/1, [row()], tolerance: 1.0e-4)
  end

  test "what a loop begins with stays, and a run says nothing to the next" do
    x = Nx.backend_copy(row(), Emily.Backend)
    before = Nx.to_binary(x)

    run =
      Nx.Defn.compile(&cached/2, [Nx.to_template(x), Nx.to_template(turns(0))],
        compiler: Emily.Compiler
      )

    [first, second, short] = for n <- [20, 20, 7], do: run.(x, turns(n))
    assert Nx.to_binary(x) == before
    assert Nx.to_binary(elem(first, 0)) == Nx.to_binary(elem(second, 0))
    assert Nx.to_binary(elem(first, 0)[0..6]) == Nx.to_binary(elem(short, 0)[0..6])
    assert Nx.to_number(elem(short, 2)) == 7
  end

  # Each turn is a view of the one before, and at last of what the loop began with.
  defn reversed(x, n) do
    {y, _, _} = while {y = x, i = 0, n}, i < n, do: {Nx.reverse(y), i + 1, n}
    {x, y}
  end

  defn flipped(x, n) do
    {y, _, _} = while {y = x, i = 0, n}, i < n, do: {Nx.transpose(y), i + 1, n}
    {x, y}
  end

  test "what a loop begins with stays where turns do nothing but move elements" do
    small = Nx.iota({4, 4}, type: :f32)

    for x <- [small, square()], loop <- [&reversed/2, &flipped/2], n <- [3, 4, 5, 20, 21] do
      assert_compiled(loop, [x, turns(n)])
      e = Nx.backend_copy(x, Emily.Backend)
      Nx.Defn.jit_apply(loop, [e, turns(n)], compiler: Emily.Compiler)
      assert Nx.to_binary(e) == Nx.to_binary(x)
    end
  end

  test "loops side by side" do
    run =
      Nx.Defn.compile(&cached/2, [Nx.to_template(row()), Nx.to_template(turns(0))],
        compiler: Emily.Compiler
      )

    alone =
      for scale <- 1..4, do: Nx.to_binary(elem(run.(Nx.multiply(row(), scale), turns(25)), 1))

    together =
      1..4
      |> Task.async_stream(
        fn scale ->
          Nx.default_backend(Nx.BinaryBackend)
          Nx.to_binary(elem(run.(Nx.multiply(row(), scale), turns(25)), 1))
        end,
        max_concurrency: 4
      )
      |> Enum.map(&elem(&1, 1))

    assert together == alone
  end
end
