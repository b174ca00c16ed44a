defmodule Emily.Compiler.GrowthTest do
  # Functions twice as large take about twice as much to compile: in steps of the VM, which no other work on the
  # machine changes, and in the size of what comes out.
  use Emily.CompilerCase, async: true

  import Nx.Defn
  alias Emily.Compiler.Builder

  # A loop, a condition and a function, around what `inner` makes of their values.
  defn loop(x, opts \\ []) do
    while x, Nx.all(x < 3), do: inside(x, opts)
  end

  defn branch(x, opts \\ []) do
    if Nx.all(x > 0), do: inside(x, opts), else: x - 1
  end

  deftransformp inside(x, opts), do: opts[:inner].(x)

  # A state of many tensors.
  defn rotated(state) do
    {state, _} = while {state, i = 0}, i < 3, do: {rotate(state), i + 1}
    state
  end

  deftransformp rotate(state) do
    [first | others] = Tuple.to_list(state)
    List.to_tuple(others ++ [first])
  end

  defp nested(0, _level, x), do: Nx.add(x, 1)
  defp nested(n, level, x), do: level.(n, x, &nested(n - 1, level, &1))

  defp loops(_n, x, inner), do: loop(x, inner: inner)
  defp branches(_n, x, inner), do: branch(x, inner: inner)

  defp both(n, x, inner),
    do: if(rem(n, 2) == 0, do: loop(x, inner: inner), else: branch(x, inner: inner))

  defp fold(x, fun), do: x |> Nx.reshape({1}) |> Nx.reduce(0.0, fun)
  defp chained(n, x, fun), do: Enum.reduce(1..n, x, fn at, x -> fun.(x, at) end)

  # By their names: a size, a function of it and of x, and by how much twice the size may cost more. Of each branch
  # Nx collects the ids anew, so conditions within conditions grow by the square of their depth, as in Nx's evaluator.
  defp shapes do
    [
      chain: {2000, fn n, x -> chained(n, x, fn x, _ -> Nx.sin(x) end) end, 2.3},
      sharing: {1000, fn n, x -> chained(n, x, fn x, _ -> Nx.add(x, x) end) end, 2.3},
      results: {500, fn n, x -> List.to_tuple(for at <- 1..n, do: Nx.add(x, at)) end, 2.3},
      tuples: {500, fn n, x -> chained(n, x, fn tuple, _ -> {tuple, x} end) end, 2.3},
      states:
        {300, fn n, x -> rotated(List.to_tuple(for at <- 1..n, do: Nx.add(x, at))) end, 2.3},
      stack: {500, fn n, x -> Nx.stack(for at <- 1..n, do: Nx.add(x, at)) end, 2.3},
      hooks: {300, fn n, x -> chained(n, x, fn x, _ -> observe(Nx.sin(x), & &1) end) end, 2.3},
      functions: {100, fn n, x -> chained(n, x, fn x, _ -> fold(x, &Nx.subtract/2) end) end, 2.3},
      compositions:
        {200, fn n, x -> chained(n, x, fn x, _ -> Nx.logsumexp(Nx.stack([x, x])) end) end, 2.3},
      loops:
        {200, fn n, x -> chained(n, x, fn x, _ -> loop(x, inner: &Nx.add(&1, 1)) end) end, 2.3},
      gradients:
        {20,
         fn n, x ->
           grad(x, fn x -> chained(n, x, fn x, _ -> loop(x, inner: &Nx.sin/1) end) end)
         end, 2.3},
      side_by_side:
        {80,
         fn n, x ->
           Enum.reduce(1..n, x, fn at, sum -> Nx.add(sum, branch(x, inner: &Nx.add(&1, at))) end)
         end, 2.3},
      loops_in_loops: {40, fn n, x -> nested(n, &loops/3, x) end, 2.3},
      branches_in_branches: {40, fn n, x -> nested(n, &branches/3, x) end, 5.0},
      both: {40, fn n, x -> nested(n, &both/3, x) end, 2.5},
      branches:
        {40, fn n, x -> chained(n, x, fn x, at -> branch(x, inner: &Nx.add(&1, at)) end) end, 5.0}
    ]
  end

  for name <-
        ~w(chain sharing results tuples states stack hooks functions compositions loops gradients)a ++
          ~w(side_by_side loops_in_loops branches_in_branches both branches)a do
    test "#{name}" do
      {size, shape, most} = shapes()[unquote(name)]

      [{once, once_size}, {twice, twice_size}] =
        for n <- [size, 2 * size], do: cost(&shape.(n, &1))

      assert twice / once < most
      assert twice_size / once_size < 2.3
    end
  end

  # The reductions of building a function's program, and the words of its term. The least of some: where a process is
  # when its memory is collected adds to them.
  defp cost(fun) do
    expr = Nx.Defn.debug_expr(fun).(Nx.template({}, :f32))
    build = fn -> Builder.build(expr, device: :cpu, hooks: [], fallback: :eval) end
    # The first loads code.
    build.()

    built =
      for _ <- 1..3 do
        {:reductions, before} = Process.info(self(), :reductions)
        %{function: function} = build.()
        {:reductions, now} = Process.info(self(), :reductions)
        {now - before, function}
      end

    {reductions, function} = Enum.min_by(built, &elem(&1, 0))
    Emily.Native.Program.compile(function)
    {reductions, :erts_debug.size(function)}
  end

  test "a function that shares its parts is kept, evaluated and called without a copy of each" do
    half = fn x, _ -> Nx.multiply(Nx.add(x, x), 0.5) end
    chain = fn x -> chained(100, x, half) end
    fold = fn x -> Nx.reduce(x, 0.0, &chained(100, Nx.subtract(&1, &2), half)) end

    # MLX has no c128, so that the first is evaluated, and no such fold, so that the second calls Elixir.
    for {fun, x} <- [
          {chain, Nx.tensor(Complex.new(1.0, 2.0), type: :c128)},
          {fold, Nx.tensor([1.0, 2.0, 3.0])}
        ] do
      expected = Nx.to_flat_list(evaluated(fun, [x]))

      Emily.Fallback.with_mode(:silent, fn ->
        for _ <- 1..2, do: assert(Nx.to_flat_list(compiled(fun, [x])) == expected)
      end)
    end
  end
end
