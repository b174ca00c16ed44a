defmodule Emily.Native.ProgramRandomTest do
  # Random programs of operations, conditions, loops and calls, nested in each other, beside an interpreter
  # of integers: what a program holds and lets go of must not change what it computes.
  use ExUnit.Case, async: true

  alias Emily.Native
  alias Emily.Native.Program

  @programs 300
  @binary [:add, :subtract, :multiply, :maximum, :minimum, :bitwise_xor]

  test "programs compute what they say, and call what they say in order" do
    for seed <- 1..@programs do
      :rand.seed(:exsss, {seed, 7, 42})
      {function, [a, b]} = {block([], 2, 3), [:rand.uniform(100), -:rand.uniform(100)]}
      expected = interpret(function, [a, b], %{})
      expected_calls = calls()

      program = Program.compile(function)
      results = Program.run(program, Native.run([number(a), number(b)]), :cpu, &call/2)

      assert {Enum.map(results, &Native.item/1), calls()} == {expected, expected_calls},
             "seed #{seed}: #{inspect(function, limit: :infinity)}"
    end
  end

  ## Programs

  # A function of `arity` numbers, amid the values `around`, that gives two.
  defp block(around, arity, depth) do
    parameters = for _ <- 1..arity//1, do: unique()

    {steps, known} =
      Enum.flat_map_reduce(1..:rand.uniform(5), around ++ parameters, fn _, known ->
        id = unique()
        {expression, results} = expression(known, depth)

        parts =
          if results, do: for(i <- results, do: {unique(), {:elem, i, {:var, id}}}), else: []

        new = if results, do: Enum.map(parts, &elem(&1, 0)), else: [id]
        {[{id, expression} | parts], known ++ new}
      end)

    {parameters, steps, [operand(known), operand(known)]}
  end

  # An expression, and the numbers of its results where there are several.
  defp expression(known, 0), do: {operation(known), nil}

  defp expression(known, depth) do
    case :rand.uniform(9) do
      n when n <= 4 ->
        {operation(known), nil}

      n when n <= 6 ->
        {{:cond, less(known), block(known, 0, depth - 1), block(known, 0, depth - 1)}, [0, 1]}

      7 ->
        {repeat(known, depth), [1, 2]}

      8 ->
        {{:call, :rand.uniform(3), [operand(known), operand(known)], 1}, [0]}

      9 ->
        {{:call, 4, [operand(known)], 0}, []}
    end
  end

  # A counter and two numbers, up to four times.
  defp repeat(known, depth) do
    [counter, x, y] = tested = for _ <- 1..3, do: unique()
    condition = {tested, [], [{:logical_and, {:less, var(counter), number(4)}, less([x, y])}]}
    at = unique()
    {[x, y], steps, results} = block(known, 2, depth - 1)
    body = {[at, x, y], steps, [{:add, var(at), number(1)} | results]}
    {:while, [number(0), operand(known), operand(known)], condition, body}
  end

  defp operation([]), do: number(:rand.uniform(9))
  defp operation(known), do: {Enum.random(@binary), operand(known), operand(known)}
  defp less(known), do: {:less, operand(known), operand(known)}

  # The latest are the likeliest, so that the others end.
  defp operand([]), do: number(3)
  defp operand(known), do: var(Enum.random(Enum.take(known, -4)))
  defp var(id), do: {:var, id}
  defp number(n), do: {:full, [], n, :s32}
  defp unique, do: :erlang.unique_integer()

  ## What they mean

  defp interpret({parameters, steps, results}, arguments, values) do
    values = parameters |> Enum.zip(arguments) |> Enum.into(values)

    values =
      Enum.reduce(steps, values, fn {id, expression}, values ->
        Map.put(values, id, value(expression, values))
      end)

    Enum.map(results, &value(&1, values))
  end

  defp value({:var, id}, values), do: Map.fetch!(values, id)
  defp value({:full, [], n, :s32}, _values), do: n
  defp value({:elem, i, list}, values), do: Enum.at(value(list, values), i)
  defp value({:less, x, y}, values), do: value(x, values) < value(y, values)
  defp value({:logical_and, x, y}, values), do: value(x, values) and value(y, values)

  defp value({:cond, predicate, yes, no}, values),
    do: interpret(if(value(predicate, values), do: yes, else: no), [], values)

  defp value({:while, initial, condition, body}, values),
    do: loop(Enum.map(initial, &value(&1, values)), condition, body, values)

  defp value({:call, index, operands, _results}, values),
    do: called(index, Enum.map(operands, &value(&1, values)))

  defp value({name, x, y}, values), do: apply_number(name, value(x, values), value(y, values))

  defp loop(state, condition, body, values) do
    case interpret(condition, state, values) do
      [true] -> state |> then(&interpret(body, &1, values)) |> loop(condition, body, values)
      [false] -> state
    end
  end

  defp apply_number(:add, x, y), do: wrap(x + y)
  defp apply_number(:subtract, x, y), do: wrap(x - y)
  defp apply_number(:multiply, x, y), do: wrap(x * y)
  defp apply_number(:maximum, x, y), do: max(x, y)
  defp apply_number(:minimum, x, y), do: min(x, y)
  defp apply_number(:bitwise_xor, x, y), do: Bitwise.bxor(x, y)

  defp wrap(n) do
    <<wrapped::signed-32>> = <<n::32>>
    wrapped
  end

  # Calls are noted in the mailbox.
  defp called(index, numbers) do
    send(self(), {:called, index, numbers})
    if index == 4, do: [], else: [wrap(Enum.sum(numbers) * index)]
  end

  defp call(index, arrays) do
    Native.run(for n <- called(index, Enum.map(arrays, &Native.item/1)), do: number(n))
  end

  defp calls do
    receive do
      {:called, index, numbers} -> [{index, numbers} | calls()]
    after
      0 -> []
    end
  end
end
