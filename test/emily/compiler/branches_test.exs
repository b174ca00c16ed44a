defmodule Emily.Compiler.BranchesTest do
  # What runs in the branches of conditions, and how often, beside Nx's evaluator: hooks tell.
  use Emily.CompilerCase, async: true

  import Nx.Defn

  # Hooks run in the calling process.
  deftransformp tell(x, mark) do
    observe(x, fn _ -> send(self(), mark) end)
  end

  defn loop(x) do
    {x, _} =
      while {x, i = 0}, i < 2 do
        {tell(x + 1, :loop), i + 1}
      end

    x
  end

  # What Nx's evaluator gives, with the same hooks in the same order. It runs some twice, where a condition
  # reads what the branch of another has computed.
  defp assert_as_evaluated(fun, args) do
    expected = evaluated(fun, args)
    marks = mailbox()
    assert_compiled_to(fun, args, expected)
    found = mailbox()
    assert {args, Enum.uniq(found)} == {args, Enum.uniq(marks)}
    assert length(found) <= length(marks)
    found
  end

  defp assert_compiled_to(fun, args, expected) do
    actual = Nx.Defn.Composite.flatten_list([compiled(fun, args)])
    expected = Nx.Defn.Composite.flatten_list([expected])
    for {a, b} <- Enum.zip(actual, expected), do: assert_equal(a, b, tolerance: 1.0e-6)
  end

  @numbers [-7.0, -1.0, 0.5, 2.0]

  defn two_of_three(x) do
    y = loop(x)

    cond do
      x < 0 -> y + 1
      x < 1 -> y * 2
      true -> x
    end
  end

  defn two_conditions(x) do
    y = loop(x)
    {if(x < 1, do: y + 1, else: x), if(x < 0, do: x, else: y * 2)}
  end

  defn one_after_the_other(x) do
    y = tell(Nx.sin(x), :y)
    z = if x < 1, do: y + 1, else: x
    if z < 0.5, do: y * 2, else: tell(z, :z)
  end

  defn deep(x) do
    y = loop(x)
    z = tell(y * 2, :z)

    if x < 1 do
      a = if x < 0, do: z, else: x
      b = if x < -5, do: x, else: if(a > 0, do: y, else: z + a)
      a + b
    else
      if x > 1, do: x, else: y
    end
  end

  defn in_a_loop(x) do
    {x, _} =
      while {x, i = 0}, i < 4 do
        y = loop(x)
        a = if x < i, do: y, else: x
        b = if i > 2, do: y * a, else: a
        {b - 2, i + 1}
      end

    x
  end

  defn needed_outside(x) do
    y = loop(x)
    {if(x < 0, do: y, else: x), if(x < 1, do: y, else: x), y}
  end

  # The state of one loop and a condition, of several values each, are shared.
  defn containers(x) do
    {a, {b, _}} =
      while {a = x, {b = Nx.iota({2}), i = 0}}, i < 2 do
        {tell(a + 1, :a), {b * 2, i + 1}}
      end

    {c, d} = if x > 0, do: {tell(a, :c), b}, else: {x, tell(b + 1, :d)}
    e = if x > -5, do: {c, d}, else: {x, Nx.iota({2})}
    f = if x < 1, do: %{m: c, n: {d, a}}, else: %{m: x, n: {b, x}}
    {e, f}
  end

  for name <-
        [:two_of_three, :two_conditions, :one_after_the_other, :deep, :in_a_loop] ++
          [:needed_outside, :containers] do
    test "of #{name}" do
      for x <- @numbers,
          do: assert_as_evaluated(Function.capture(__MODULE__, unquote(name), 1), [x])
    end
  end

  defn graded(x) do
    y = if x < 1, do: loop(x) * x, else: Nx.sin(x)

    cond do
      y < -2 -> y * x
      x < 1 -> if(x > 0, do: y * y, else: tell(Nx.cos(y), :cos))
      true -> y + x
    end
  end

  test "of gradients" do
    for x <- @numbers do
      assert_as_evaluated(&grad(&1, fn x -> graded(x) end), [x])
      assert_as_evaluated(&value_and_grad(&1, fn x -> Nx.multiply(graded(x), graded(x)) end), [x])
    end
  end

  # Nx's evaluator computes anew in a branch what a predicate has computed.
  defn asked_before(x) do
    y = loop(x)

    cond do
      x < 0 -> x
      y < 3 -> y * 2
      true -> y + 1
    end
  end

  test "what a predicate has computed is not computed again" do
    for {x, times} <- [{-1.0, 0}, {0.5, 2}, {2.0, 2}],
        do: assert(length(assert_as_evaluated(&asked_before/1, [x])) == times)
  end

  # Nx 0.12 gave runtime_call options.
  deftransformp called(x, mark) do
    call = fn x -> send(self(), mark) && Nx.multiply(x, 3) end
    out = Nx.template({}, :f32)

    if function_exported?(Nx, :runtime_call, 4),
      do: apply(Nx, :runtime_call, [out, x, [], fn x, [] -> call.(x) end]),
      else: apply(Nx, :runtime_call, [out, x, call])
  end

  defn calling(x) do
    y = called(x, :y)
    z = called(y + 1, :z)
    a = if x < 0, do: y, else: x
    b = if x < 1, do: z, else: a
    if b > 3, do: z, else: b
  end

  test "of functions of the caller's" do
    for {x, found} <- [{-7.0, [:y, :z]}, {0.5, [:y, :z]}, {2.0, []}],
        do: assert(assert_as_evaluated(&calling/1, [x]) == found)
  end

  describe "many conditions" do
    # Nx's evaluator takes twice as long with each: expected values by Elixir's own arithmetic.
    test "each read by both branches of the next" do
      chain = fn x ->
        Enum.reduce(1..200, x, fn n, y ->
          either(Nx.greater(x, n), yes: fn -> Nx.add(y, 1) end, no: fn -> Nx.subtract(y, 1) end)
        end)
      end

      for x <- [0, 7, 500] do
        expected = Enum.reduce(1..200, x, fn n, y -> if x > n, do: y + 1, else: y - 1 end)
        assert_equal(compiled(chain, [x]), Nx.tensor(expected))
      end
    end

    test "each read by a branch of the next two" do
      pairs = fn x, greater, add, either ->
        Enum.reduce(1..40, {x, x}, fn n, {a, b} ->
          {either.(greater.(x, n), fn -> add.(a, b) end, fn -> x end), a}
        end)
      end

      graph = fn x ->
        either = fn p, yes, no -> either(p, yes: yes, no: no) end
        x |> pairs.(&Nx.greater/2, &Nx.add/2, either) |> elem(0)
      end

      for x <- [-3, 20, 41] do
        either = fn p, yes, no -> if p, do: yes.(), else: no.() end
        {expected, _} = pairs.(x, &Kernel.>/2, &Kernel.+/2, either)
        assert_equal(compiled(graph, [Nx.s64(x)]), Nx.s64(expected))
      end
    end

    defp nested(x, 0), do: Nx.multiply(x, 3)

    defp nested(x, n) do
      either(Nx.greater(x, n), yes: fn -> Nx.add(nested(x, n - 1), 1) end, no: fn -> x end)
    end

    test "in each other" do
      for {x, expected} <- [{500, 1700}, {100, 100}],
          do: assert_equal(compiled(&nested(&1, 200), [x], cache: false), Nx.tensor(expected))
    end
  end

  defn either(p, opts \\ []), do: if(p, do: branch(opts, :yes), else: branch(opts, :no))

  defn one_of(p, q, opts \\ []) do
    cond do
      p -> branch(opts, :yes)
      q_of(q, opts) -> branch(opts, :maybe)
      true -> branch(opts, :no)
    end
  end

  deftransformp(branch(opts, name), do: opts[name].())
  deftransformp(q_of(q, _opts), do: q)

  # Random graphs of operations, hooks, loops and conditions, nested, that share what came before.
  defp random_graph(x, seed) do
    :rand.seed(:exsss, seed)
    Process.put(:marks, 0)
    nodes = grow([x], 2, 12)
    Enum.take(nodes, 1) ++ Enum.take_random(nodes, 2)
  end

  defp grow(nodes, _depth, 0), do: nodes

  defp grow(nodes, depth, count) do
    some = fn -> Enum.random(nodes) end

    node =
      case :rand.uniform(if(depth > 0, do: 9, else: 4)) do
        1 -> Nx.sin(Nx.add(some.(), some.()))
        2 -> Nx.subtract(some.(), some.())
        3 -> tell(Nx.multiply(some.(), 0.9), mark())
        4 -> marked_loop(some.(), mark: mark())
        5 -> one_of(random_predicate(nodes), random_predicate(nodes), branches(nodes, depth))
        _ -> either(random_predicate(nodes), branches(nodes, depth))
      end

    grow([node | nodes], depth, count - 1)
  end

  defp branches(nodes, depth) do
    for name <- [:yes, :maybe, :no] do
      {name,
       fn -> nodes |> grow(depth - 1, :rand.uniform(3) - 1) |> Enum.take(4) |> Enum.random() end}
    end
  end

  defp random_predicate(nodes) do
    predicate = Nx.greater(Enum.random(nodes), :rand.normal())
    if :rand.uniform(4) == 1, do: tell(predicate, mark()), else: predicate
  end

  defp mark, do: Process.put(:marks, Process.get(:marks) + 1)

  defn marked_loop(x, opts \\ []) do
    {x, _} =
      while {x, i = 0}, i < 2 do
        {tell_of(x * 0.5, opts) + 1, i + 1}
      end

    x
  end

  deftransformp(tell_of(x, opts), do: tell(x, {:loop, opts[:mark]}))

  test "of random graphs: what the evaluator runs, once each" do
    for seed <- 1..150, x <- [-1.0, 0.3, 1.5] do
      fun = fn x -> x |> random_graph(seed) |> List.to_tuple() end
      expected = evaluated(fun, [x])
      marks = MapSet.new(mailbox())
      assert_compiled_to(fun, [x], expected)
      found = Enum.frequencies(mailbox())
      assert {seed, x, MapSet.new(Map.keys(found))} == {seed, x, marks}
      for {mark, times} <- found, do: assert(times == if(is_tuple(mark), do: 2, else: 1))
    end
  end
end
