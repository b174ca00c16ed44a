defmodule Emily.Native.DecodingTest do
  # Terms share their parts: one of a few kilobytes may stand for more than any memory holds. Whatever is decoded
  # counts against a budget, and what is above it is refused, in an instant and without the memory.
  use ExUnit.Case, async: true

  alias Emily.Native
  alias Emily.Native.Program

  # Levels enough that no machine writes the whole out.
  @levels 60

  defp x, do: hd(Native.run([{:full, [], 1.0, :f32}]))
  defp doubled(leaf, double), do: Enum.reduce(1..@levels, leaf, fn _, part -> double.(part) end)
  defp often(expression), do: {:elem, 0, {:tuple, List.duplicate(expression, 1000)}}

  @bombs [
    operation: quote(do: doubled(x(), &{:add, &1, &1})),
    list: quote(do: {:stack, doubled([x()], &[{:stack, &1, 0}, {:stack, &1, 0}]), 0}),
    tuple: quote(do: {:elem, 0, doubled(x(), &{:tuple, [&1, &1]})}),
    text: quote(do: {:einsum, String.duplicate("a", 50_000_000), [x()]}),
    texts: quote(do: often({:einsum, String.duplicate("a", 100_000), [x()]})),
    numbers: quote(do: often({:reshape, x(), Enum.to_list(1..100_000)})),
    arrays: quote(do: often({:stack, List.duplicate(x(), 100_000), 0})),
    names: quote(do: names(@levels, & &1)),
    operands: quote(do: names(30, &{:stack, [&1], 0}))
  ]

  # Each name stands for the one before, twice.
  defp names(levels, use) do
    body = {:elem, 0, use.({:tuple, [{:var, levels}]})}

    lets =
      Enum.reduce(levels..1//-1, body, fn level, body ->
        {:let, level, {:tuple, [{:var, level - 1}, {:var, level - 1}]}, body}
      end)

    {:let, 0, x(), lets}
  end

  defp refused(call) do
    error = assert_raise ArgumentError, ~r/:let names what is repeated/, call
    assert String.length(error.message) < 300
  end

  describe "refused is, of itself or in many places," do
    for {name, bomb} <- @bombs do
      test "#{name}" do
        bomb = unquote(bomb)
        refused(fn -> Native.run([bomb]) end)
        refused(fn -> Program.compile({[], [], [bomb]}) end)
        refused(fn -> Program.compile({[], [{1000, bomb}], [x()]}) end)
      end
    end
  end

  test "functions within functions count" do
    loops =
      doubled({[0], [], [{:var, 0}]}, fn function ->
        {[0], [], [{:while, [{:var, 0}], function, function}]}
      end)

    branches =
      doubled({[], [], [x()]}, fn function -> {[], [], [{:cond, x(), function, function}]} end)

    calls =
      doubled(x(), fn part -> {:elem, 0, {:call, 0, [part, part], 1}} end)

    refused(fn -> Program.compile(loops) end)
    refused(fn -> Program.compile(branches) end)
    refused(fn -> Program.compile({[], [], [calls]}) end)
  end

  test "no scheduler is lost to what is refused" do
    bomb = doubled(x(), &{:add, &1, &1})
    count = :erlang.system_info(:dirty_cpu_schedulers) + 1
    for _ <- 1..count, do: refused(fn -> Program.compile({[], [], [bomb]}) end)
    assert Program.compile({[], [], [x()]}).operations == 0
  end

  test "the messages of other refusals show the beginning of a term" do
    # None of these is an expression, a function, an array or a shape.
    for bad <- [doubled(1, &{&1, &1}), doubled([1], &[&1 | &1]), {doubled(1, &{&1, &1})}],
        call <- [
          fn -> Native.run(bad) end,
          fn -> Native.run([{:add, bad, x()}]) end,
          fn -> Native.run([x()], bad) end,
          fn -> Native.rms_norm(x(), bad, bad) end,
          fn -> Native.einsum(bad, bad) end,
          fn -> Native.shape(bad) end,
          fn -> Native.from_binary("abcd", bad, :u8) end,
          fn -> Native.from_binary("abcd", {4}, bad) end,
          fn -> Program.compile(bad) end,
          fn -> Program.compile({bad, bad, bad}) end,
          fn -> Program.compile({[], [{1, bad}], bad}) end,
          fn -> Program.compile({[], [], [x()]}, results: bad) end
        ] do
      error = assert_raise ArgumentError, call
      assert String.length(error.message) < 10_000
    end
  end

  test "what is large is decoded all the same" do
    [stacked] = Native.run([{:stack, List.duplicate(x(), 300_000), 0}])
    assert Native.shape(stacked) == {300_000}
    assert length(Native.run(for _ <- 1..20_000, do: {:negative, x()})) == 20_000

    steps = for id <- 1..100_000, do: {id, {:add, {:var, id - 1}, {:var, id - 1}}}
    assert Program.compile({[0], steps, [{:var, 100_000}]}).operations == 100_000
  end

  test "loops in loops are compiled and run, however many" do
    # Each level adds one, once: the innermost ends all.
    [zero, one] = for number <- 0..1, do: {:full, [], number, :s32}
    going = {[0, 1], [], [{:greater, {:var, 0}, zero}]}

    function =
      Enum.reduce(1..500, {[0, 1], [], [zero, {:add, {:var, 1}, one}]}, fn _, body ->
        loop = {:while, [{:var, 0}, {:var, 1}], going, body}
        results = [{:elem, 0, {:var, 2}}, {:add, {:elem, 1, {:var, 2}}, one}]
        {[0, 1], [{2, loop}], results}
      end)

    program = Program.compile(function)
    start = for number <- [1, 0], do: hd(Native.run([{:full, [], number, :s32}]))
    assert [_zero, count] = Program.run(program, start)
    assert Native.item(count) == 501
  end

  test "results are what they are declared as" do
    program = fn results -> Program.compile({[0], [], [{:exp, {:var, 0}}]}, results: results) end
    assert [_] = Program.run(program.([{:f32, []}]), [x()])

    for {declared, shown} <- [{{:f64, []}, "f64"}, {{:f32, [1]}, "\\[1\\]"}] do
      assert_raise ArgumentError, ~r/result 0 .* f32 of shape \[\], .*#{shown}/, fn ->
        Program.run(program.([declared]), [x()])
      end
    end

    for bad <- [[{:f32, [1 | 2]}], [{:f32, []} | 1], [{:f33, []}], [:f32], {}] do
      assert_raise ArgumentError, ~r/no types and shapes/, fn -> program.(bad) end
    end

    assert_raise ArgumentError, ~r/1 results, not 2/, fn ->
      Program.run(program.([{:f32, []}, {:f32, []}]), [x()])
    end
  end
end
