Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.CachedAttentionTest do
  # Queries of zeros weigh all keys that they see alike, so that each result is a mean of values. What a
  # kernel with a mask over the whole cache would read is no number.
  use NativeCase, async: true

  alias Emily.Native.Program

  defp v(id), do: {:var, id}

  # A batch of caches with one head, whose values are those numbers.
  defp cache(rows) do
    array(List.flatten(rows), [length(rows), 1, length(hd(rows)), 1], :f32)
  end

  defp key_mask(rows), do: array(List.flatten(rows), [length(rows), length(hd(rows))], :s32)

  # Keys and values are the same.
  defp attention(values, queries, mask, offset) do
    q = {:full, [length(mask), 1, queries, 1], 0.0, :f32}
    values = cache(values)
    {:cached_attention, q, values, values, 1.0, key_mask(mask), offset}
  end

  defp offset(number, type \\ :s32), do: {:full, [], number, type}

  defp looked_at(expression) do
    program = Program.compile({[], [], [expression]})
    assert program.waits
    program |> Program.run([]) |> hd() |> numbers()
  end

  # A kernel, on a CPU or a GPU, reads what is seen alone, in a program or not.
  defp whole(seen) do
    kernel? = :gpu in Emily.Native.devices() or Emily.Native.kernels() != nil
    if kernel?, do: seen, else: List.duplicate(:nan, length(seen))
  end

  test "a program leaves out what is behind the queries" do
    one = attention([[1, 2, 3, :nan, :nan]], 1, [[1, 1, 1, 0, 1]], offset(2))
    assert looked_at(one) == [2]
    assert numbers(one) == whole([2])

    three = attention([[1, 2, 3, 4, :nan]], 3, [[1, 1, 1, 1, 1]], offset(1, :u8))
    assert looked_at(three) == [1.5, 2, 2.5]
    assert numbers(three) == whole([1.5, 2, 2.5])
  end

  test "a program leaves out the padding before the first token" do
    padded = attention([[:nan, :nan, 3, 4, :nan]], 2, [[0, 0, 1, 1, 0]], offset(2, :s64))
    assert looked_at(padded) == [3, 3.5]
    assert numbers(padded) == whole([3, 3.5])
  end

  test "what differs between the sequences of a batch is masked" do
    mask = [[0, 0, 1, 1, 0], [0, 1, 1, 1, 0]]
    values = [[:nan, 9, 3, 4, :nan], [:nan, 2, 3, 4, :nan]]
    assert looked_at(attention(values, 1, mask, offset(3))) == [3.5, 3]
  end

  test "gaps are masked" do
    assert looked_at(attention([[1, 9, 3, 9, :nan]], 1, [[1, 0, 1, 0, 0]], offset(3))) == [2]
  end

  test "a query that sees no key is the mean of all, as without a look" do
    hidden = attention([[1, 2, 3, 6]], 2, [[0, 1, 1, 1]], offset(0))
    assert looked_at(hidden) == [3, 2]
    assert numbers(hidden) == [3, 2]
  end

  test "offsets whose keys are not there hide nothing more" do
    for offset <- [offset(4), offset(1_000_000, :s64), offset(18_446_744_073_709_551_615, :u64)] do
      beyond = attention([[1, 2, 3, 6]], 1, [[1, 1, 1, 0]], offset)
      assert looked_at(beyond) == numbers(beyond)
    end

    assert looked_at(attention([[1, 2, 3, 6]], 1, [[1, 1, 1, 0]], offset(4))) == [2]
    assert looked_at(attention([[1, 2, 3, 6]], 1, [[1, 1, 1, 1]], offset(-1))) == [3]
  end

  test "each iteration of a loop sees its own part" do
    values = cache([[1, 2, 3, 4, :nan]])
    q = {:full, [1, 1, 1, 1], 0.0, :f32}
    attention = {:cached_attention, q, values, values, 1.0, v(1), v(4)}

    # Twice in each, as two layers would.
    sum =
      {:add, {:add, v(5), {:sum, v(6), [0, 1, 2, 3], false}}, {:sum, v(7), [0, 1, 2, 3], false}}

    body = {[4, 5], [{6, attention}, {7, attention}], [{:add, v(4), offset(1)}, sum]}
    condition = {[2, 3], [], [{:less, v(2), offset(4)}]}
    initial = [offset(0), {:full, [], 0.0, :f32}]

    loop =
      {[], [{1, key_mask([[1, 1, 1, 1, 1]])}], [{:elem, 1, {:while, initial, condition, body}}]}

    assert loop |> Program.compile() |> Program.run([]) |> hd() |> numbers() == [14]
  end

  test "two offsets and two masks in one program" do
    values = cache([[1, 2, 3, 4, :nan]])
    q = {:full, [1, 1, 1, 1], 0.0, :f32}
    at = fn mask, offset -> {:cached_attention, q, values, values, 1.0, mask, offset} end
    steps = [{1, key_mask([[1, 1, 1, 1, 0]])}, {2, key_mask([[0, 1, 1, 1, 0]])}]
    steps = steps ++ [{3, offset(3)}, {4, offset(1)}]

    results = [
      at.(v(1), v(3)),
      at.(v(2), v(3)),
      at.(v(2), v(4)),
      at.(v(1), v(4)),
      at.(v(1), v(3))
    ]

    program = Program.compile({[], steps, results})
    means = program |> Program.run([]) |> Enum.flat_map(&numbers/1)
    assert means == [2.5, 3, 2, 1.5, 2.5]
  end

  test "a fused program sees as much" do
    values = cache([[1, 2, 3, 9]])
    q = {:full, [1, 1, 1, 1], 0.0, :f32}
    attention = {:cached_attention, q, values, values, 1.0, v(0), v(1)}
    program = Program.compile({[0, 1], [], [attention]}, fuse: true)
    inputs = [key_mask([[1, 1, 1, 1]]), scalar(2, :s32)]
    assert program |> Program.run(inputs) |> hd() |> numbers() == [2]
  end

  test "what does not fit is refused, looked at or not" do
    q = {:full, [1, 2, 3, 4], 0.0, :f32}
    mask = {:full, [1, 3], 1, :s32}
    short = {:full, [1, 2, 2, 4], 0.0, :f32}
    flat = {:full, [3, 4], 0.0, :f32}
    whole = {:full, [], 1, :s32}
    float = {:full, [1, 3], 1, :f32}

    for wrong <- [
          [flat, q, q, 1.0, mask, whole],
          [q, flat, q, 1.0, mask, whole],
          [q, q, short, 1.0, mask, whole],
          [q, q, q, 1.0, whole, whole],
          [q, q, q, 1.0, float, whole],
          [q, q, q, 1.0, {:full, [2, 3], 1, :s32}, whole],
          [q, q, q, 1.0, mask, mask],
          [q, q, q, 1.0, mask, {:full, [], 1.0, :f32}],
          [q, q, q, 1.0, mask, nil],
          [q, q, q, nil, mask, whole],
          [q, q, q, 1.0, mask],
          [q, q, q, 1.0, mask, whole, whole]
        ] do
      expression = List.to_tuple([:cached_attention | wrong])
      assert_raise ArgumentError, ~r/cached_attention/, fn -> Native.run([expression]) end

      assert_raise ArgumentError, ~r/cached_attention/, fn ->
        Program.run(Program.compile({[], [], [expression]}), [])
      end
    end
  end
end
