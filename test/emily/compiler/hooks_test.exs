defmodule Emily.Compiler.HooksTest do
  # Hooks of a compiled function: which run, in which order, with what, and what happens when they raise.
  use Emily.CompilerCase, async: true

  import Nx.Defn

  # Hooks run in the calling process.
  deftransformp tell(x, mark) do
    observe(x, fn seen -> send(self(), {mark, seen}) end)
  end

  defp marks, do: for({mark, _seen} <- mailbox(), do: mark)

  # Where values depend on one another, Nx sets the order.
  defn chain(x) do
    x = tell(x + 1, :first)
    x = tell(x * 2, :second)
    {x, y} = tell({x, x - 1}, :third)
    tell(x - y, :fourth)
  end

  test "run in the order of what they see, with its values and containers" do
    assert_equal(compiled(&chain/1, [3]), Nx.tensor(1))
    assert [{:first, a}, {:second, b}, {:third, {c, d}}, {:fourth, e}] = mailbox()

    for {seen, number} <- [{a, 4}, {b, 8}, {c, 8}, {d, 7}, {e, 1}],
        do: assert_equal(seen, Nx.tensor(number))
  end

  # Nx has no tokens after 0.13.
  @shown if function_exported?(Nx.Defn.Kernel, :create_token, 0),
           do: ~w(chain diamond unread)a,
           else: ~w(chain diamond)a

  test "run as often and in the same order as Nx's evaluator's" do
    for name <- @shown, fun = Function.capture(__MODULE__, name, 1) do
      evaluated(fun, [3])
      expected = mailbox()
      compiled(fun, [3])
      assert numbers_of(mailbox()) == numbers_of(expected)
    end
  end

  defp numbers_of(messages) do
    for {mark, seen} <- messages,
        do: {mark, for(t <- Nx.Defn.Composite.flatten_list([seen]), do: Nx.to_flat_list(t))}
  end

  defn diamond(x) do
    a = tell(x + 1, :top)
    {tell(a * 2, :left), tell(a * 3, :right), a}
  end

  # What the first hook sees, no result needs.
  defn unread(x) do
    {token, _} = tokens(x)
    attached(token, x + 1)
  end

  deftransformp tokens(x) do
    tell = fn mark -> fn seen -> send(self(), {mark, seen}) end end
    kernel = Nx.Defn.Kernel
    # Nx 0.13 deprecates tokens.
    token = apply(kernel, :create_token, [])
    {token, _} = apply(kernel, :hook_token, [token, Nx.multiply(x, 5), :five, tell.(:five)])
    {token, _} = apply(kernel, :hook_token, [token, Nx.multiply(x, 6), tell.(:six)])
    apply(kernel, :hook_token, [token, Nx.multiply(x, 7), :seven, tell.(:seven)])
  end

  deftransformp(attached(token, x), do: apply(Nx.Defn.Kernel, :attach_token, [token, x]))

  defn named(x) do
    a = observe(x + 1, :plain)
    b = observe(a * 2, :own, &said/1)
    observe(b, :other)
  end

  deftransform said(t) do
    send(self(), {:own, t})
  end

  test "named ones run where the caller has functions for them" do
    assert_equal(compiled(&named/1, [1]), Nx.tensor(4))
    assert [{:own, four}] = mailbox()
    assert_equal(four, Nx.tensor(4))

    hooks = %{
      plain: fn t -> send(self(), {:plain, t}) end,
      own: fn t -> send(self(), {:overridden, t}) end,
      unknown: fn _ -> flunk("there is no such hook") end
    }

    assert_equal(compiled(&named/1, [1], hooks: hooks), Nx.tensor(4))
    assert [{:plain, two}, {:overridden, four}] = mailbox()
    assert_equal(two, Nx.tensor(2))
    assert_equal(four, Nx.tensor(4))
  end

  test "nil in the place of a function is none" do
    hooks = %{plain: nil, own: nil}
    assert_equal(compiled(&named/1, [1], hooks: hooks), Nx.tensor(4))
    assert marks() == [:own]
  end

  test "the same program takes other functions for the same names" do
    for mark <- [:a, :b] do
      hooks = %{plain: fn t -> send(self(), {mark, t}) end}
      compiled(&named/1, [1], hooks: hooks)
      assert marks() == [mark, :own]
    end

    compiled(&named/1, [1])
    assert marks() == [:own]
  end

  defn counting(n) do
    {_, sum} =
      while {i = 0, sum = 0}, i < 5 do
        {tell(i + 1, :iteration), sum + i}
      end

    tell(sum + n, :sum)
  end

  test "in a loop run once an iteration, each with its own value" do
    assert_equal(compiled(&counting/1, [100]), Nx.tensor(110))
    seen = for {mark, t} <- mailbox(), do: {mark, Nx.to_number(t)}
    assert seen == for(n <- 1..5, do: {:iteration, n}) ++ [sum: 110]
  end

  defn streaming(x) do
    {x, _} =
      while {x, i = 0}, i < 20 do
        {x, i} = observe({x + 1, i + 1}, :step)
        {x, i}
      end

    x
  end

  # The hook lets an iteration go on only when it was seen from outside, so the call cannot end before.
  test "in a loop reach others while it runs" do
    test = self()

    seen = fn {_x, i} ->
      send(test, {:at, Nx.to_number(i), self()})

      receive do
        :go_on -> :ok
      end
    end

    task = Task.async(fn -> compiled(&streaming/1, [Nx.tensor([0, 1])], hooks: %{step: seen}) end)

    for n <- 1..20 do
      assert_receive {:at, ^n, pid}
      assert Process.alive?(task.pid)
      send(pid, :go_on)
    end

    assert_equal(Task.await(task, :infinity), Nx.tensor([20, 21]))
  end

  test "one that raises ends the call, leaves no message, and the next call works" do
    for {kind, raising} <- [
          error: fn -> raise ArithmeticError, "as a hook does" end,
          throw: fn -> throw(:ball) end,
          exit: fn -> exit(:left) end
        ] do
      seen = fn {_x, i} -> if Nx.to_number(i) == 3, do: raising.() end

      caught =
        try do
          compiled(&streaming/1, [Nx.tensor([0, 1])], hooks: %{step: seen})
        catch
          kind, reason -> {kind, reason}
        end

      assert {^kind, _reason} = caught
      assert mailbox() == []

      assert_equal(
        compiled(&streaming/1, [Nx.tensor([0, 1])], hooks: %{step: fn _ -> :ok end}),
        Nx.tensor([20, 21])
      )

      # A late message would have come by now: programs answer before they end.
      assert mailbox() == []
    end
  end

  test "other messages stay in the mailbox, in order" do
    send(self(), :before)
    compiled(&counting/1, [0])
    assert hd(mailbox()) == :before
  end

  test "a hook may compute, eagerly and compiled" do
    hooks = %{
      step: fn {x, i} ->
        double = compiled(&Nx.multiply(&1, 2), [x])
        send(self(), {Nx.to_number(i), Nx.to_flat_list(Nx.add(double, 1))})
      end
    }

    compiled(&streaming/1, [Nx.tensor([0, 1])], hooks: hooks)
    assert mailbox() == for(n <- 1..20, do: {n, [2 * n + 1, 2 * n + 3]})
  end

  defn in_branches(x) do
    if x > 0 do
      tell(x, :positive)
    else
      {y, _} =
        while {x, i = 0}, i < 2 do
          {if(i > 0, do: tell(x - 1, :later), else: tell(x - 2, :first)), i + 1}
        end

      y
    end
  end

  test "in branches in loops run where the branch does" do
    assert_equal(compiled(&in_branches/1, [0]), Nx.tensor(-3))
    assert marks() == [:first, :later]
    assert_equal(compiled(&in_branches/1, [1]), Nx.tensor(1))
    assert marks() == [:positive]
  end

  defn telling(x), do: tell(x, :argument)
  defn telling_sum(x), do: tell(x + 1, :sum)

  # The evaluator shows arguments without their vectorised axes, and cannot compute on vectorised
  # values in hooks.
  test "see vectorised values" do
    x = Nx.vectorize(Nx.tensor([[1, 2], [3, 4]]), :row)
    evaluated(&telling/1, [x])
    [{:argument, expected}] = mailbox()
    compiled(&telling/1, [x])
    assert [{:argument, seen}] = mailbox()
    assert_equal(seen, expected)

    compiled(&telling_sum/1, [x])
    assert [{:sum, seen}] = mailbox()
    assert_equal(seen, Nx.vectorize(Nx.tensor([[2, 3], [4, 5]]), :row))
  end

  defn printing(x), do: print_value(x * 2, label: "doubled")

  test "print_value prints" do
    printed =
      ExUnit.CaptureIO.capture_io(fn ->
        assert_equal(compiled(&printing/1, [3]), Nx.tensor(6))
      end)

    assert printed =~ "doubled"
    assert printed =~ "6"
  end

  test "a caller killed in a hook leaves the program to others" do
    for _ <- 1..3 do
      test = self()
      seen = fn _ -> send(test, :in_hook) && Process.sleep(:infinity) end

      {pid, ref} =
        spawn_monitor(fn -> compiled(&streaming/1, [Nx.tensor([0, 1])], hooks: %{step: seen}) end)

      assert_receive :in_hook
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
    end

    assert_equal(compiled(&streaming/1, [Nx.tensor([0, 1])]), Nx.tensor([20, 21]))
  end

  # More than may run at once. Each waits in its first hook for all others to be in theirs, and then runs a
  # program of its own there.
  test "that run programs find room, however many programs wait for them" do
    test = self()

    hook = fn {x, i} ->
      if Nx.to_number(i) == 1 do
        send(test, {:in_hook, self()})
        receive do: (:go_on -> :ok)
        [number] = Nx.to_flat_list(x)
        assert_equal(compiled(&doubled/1, [x]), Nx.tensor([number * 8]))
      end
    end

    tasks =
      for n <- 1..300 do
        Task.async(fn ->
          compiled(&asking/1, [Nx.tensor([n])], hooks: %{step: hook}) |> Nx.to_flat_list()
        end)
      end

    for _ <- tasks, do: assert_receive({:in_hook, _pid})
    for task <- tasks, do: send(task.pid, :go_on)

    for {[sum], n} <- Enum.with_index(Task.await_many(tasks, :infinity), 1),
        do: assert(sum == n + 6)
  end

  defn doubled(x) do
    {x, _} =
      while {x, i = 0}, i < 3 do
        {x * 2, i + 1}
      end

    x
  end

  # The step after each hook waits for what a function of the caller's gives.
  defn asking(x) do
    {x, _} =
      while {x, i = 0}, i < 3 do
        {x, i} = observe({x + 1, i + 1}, :step)
        {answered(x), i}
      end

    x
  end

  deftransformp answered(x) do
    out = Nx.template({1}, :s32)
    add = &Nx.add(&1, 1)

    if function_exported?(Nx, :runtime_call, 4),
      do: apply(Nx, :runtime_call, [out, x, [], fn x, [] -> add.(x) end]),
      else: apply(Nx, :runtime_call, [out, x, add])
  end

  # Each names one operation, which is what the function is taken for without its hook.
  defn folds(x) do
    {
      Nx.reduce(x, 0, fn x, y -> tell(x + y, :sum) end),
      Nx.reduce(x, 0, fn x, y -> tell(x, :first) + y end),
      Nx.reduce(x, 1, fn x, y -> x * observe(y, :named) end),
      Nx.reduce(x, 0, fn x, y -> Nx.max(x, called(y)) end),
      Nx.window_reduce(x, 0, {2}, fn x, y -> tell(Nx.max(x, y), :window) end),
      Nx.window_reduce(x, 0, {2}, fn x, y -> Nx.min(observe(x, :named), y) end)
    }
  end

  deftransformp called(x) do
    tell = fn x -> send(self(), {:called, x}) && x end

    # Nx 0.12 gave runtime_call options.
    if function_exported?(Nx, :runtime_call, 4),
      do: apply(Nx, :runtime_call, [x, x, [], fn x, [] -> tell.(x) end]),
      else: apply(Nx, :runtime_call, [x, x, tell])
  end

  defn folds_inside(x) do
    {x, _} =
      while {x, i = 0}, i < 3 do
        sum = Nx.reduce(x, 0, fn x, y -> observe(x + y, :named) end)

        {if(sum > 0, do: x + Nx.reduce(x, 0, fn x, y -> tell(x + y, :branch) end), else: x),
         i + 1}
      end

    x
  end

  test "in the function of a reduction run for each element" do
    named = [hooks: %{named: fn seen -> send(self(), {:named, seen}) end}]
    x = Nx.tensor([1, 2, 3])

    for fun <- [&folds/1, &folds_inside/1] do
      evaluated(fun, [x], named)
      expected = numbers_of(mailbox())
      assert length(expected) > 10

      Emily.Fallback.with_mode(:silent, fn ->
        # The second time as it was kept.
        for _ <- 1..2 do
          compiled(fun, [x], named)
          assert numbers_of(mailbox()) == expected
        end

        evaluated(fun, [on_emily(x)], named)
        assert numbers_of(mailbox()) == expected
      end)
    end
  end
end
