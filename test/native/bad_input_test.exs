Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.BadInputTest do
  # Whatever is passed, the answer is an ArgumentError, an Emily.Error or what Elixir itself raises
  # for a wrong list of options; the table of the Rust tests has the messages of each refusal.
  use NativeCase, async: true

  import Bitwise

  alias Emily.Native.Nif

  # Terms of every kind, none of which is an array.
  defp terms do
    [nil, true, :no_such_thing, :f32, :cpu, 0, -1, 1 <<< 31, 1 <<< 64, -(1 <<< 100), 1.5, -0.0] ++
      [1.0e308, "", "ij,jk->ik", <<255>>, <<1::3>>, [], [1], [nil], [1 | 2], ~c"text", {}, {1}] ++
      [{:add}, {:no_such_operation, 1}, %{}, %{a: 1}, self(), make_ref(), &terms/0, 1..2] ++
      [Native.stream_new(:cpu), List.duplicate(1, 100), :binary.copy("a", 1000), MapSet.new()]
  end

  defp x, do: run({:full, [2, 2], 1, :f32})

  # The call raises one of the two errors that the binding may raise.
  defp refused(call) do
    result = call.()
    flunk("gave #{inspect(result)}")
  rescue
    _ in [ArgumentError, Emily.Error] -> :refused
  end

  # The call may succeed, and raises nothing else.
  defp answered(call) do
    call.()
  rescue
    _ in [ArgumentError, Emily.Error] -> :refused
  end

  describe "in the place of an array" do
    for function <- [:to_binary, :item, :shape, :dtype, :nbytes, :eval, :async_eval] do
      test "#{function} refuses everything else" do
        # An empty list of arrays, and nil, which is wrapped into one, are nothing to compute.
        empty = if unquote(function) in [:eval, :async_eval], do: [nil, []], else: []
        for term <- terms() -- empty, do: refused(fn -> Native.unquote(function)(term) end)
      end
    end

    test "lists of arrays refuse what is none, and what is no list" do
      for term <- terms(), function <- [&Native.eval/1, &Native.async_eval/1] do
        refused(fn -> function.([x(), term]) end)
        unless is_list(term), do: refused(fn -> function.([x() | term]) end)
      end
    end

    test "expressions refuse it" do
      for term <- terms() do
        refused(fn -> Native.run([{:exp, term}]) end)
        refused(fn -> Native.run([{:add, x(), term}]) end)
        refused(fn -> Native.run([term]) end)
      end
    end
  end

  describe "every operation" do
    test "refuses every term in every place, at any number of arguments" do
      good = x()
      # Once, since one of them is a new stream, which is a thread.
      terms = terms()

      for name <- operations(), count <- 0..9, term <- Enum.take_random(terms, 12) do
        for place <- 0..max(count - 1, 0)//1 do
          arguments = List.duplicate(good, count) |> List.replace_at(place, term)
          answered(fn -> Native.run([List.to_tuple([name | arguments])]) end)
        end
      end
    end

    test "refuses more arguments than it takes" do
      for name <- operations() do
        refused(fn -> Native.run([List.to_tuple([name | List.duplicate(x(), 12)])]) end)
        refused(fn -> Native.run([{name}]) end)
      end
    end
  end

  describe "from_file" do
    @describetag :tmp_dir

    test "reads what is there and refuses what is not", %{tmp_dir: folder} do
      path = Path.join(folder, "bytes")
      File.write!(path, <<0, 1, 2, 3, 4>>)
      assert Native.to_binary(Native.from_file(path, 0, [5], :u8)) == <<0, 1, 2, 3, 4>>
      assert Native.to_binary(Native.from_file(path, 1, {2}, :u16)) == <<1, 2, 3, 4>>
      assert Native.to_binary(Native.from_file(path, 4, [], :u8)) == <<4>>

      for {offset, shape, type} <- [
            {0, [6], :u8},
            {5, [1], :u8},
            {2, [2], :u16},
            {1 <<< 62, [1], :u8},
            {1 <<< 64, [1], :u8},
            {-1, [1], :u8},
            {0.0, [1], :u8},
            {0, [0], :u8},
            {0, [-1], :u8},
            {0, [1 | 2], :u8},
            {0, :shape, :u8},
            {0, [1], :u7},
            {0, [2_147_483_647, 2_147_483_647, 2_147_483_647], :f32}
          ] do
        refused(fn -> Native.from_file(path, offset, shape, type) end)
      end

      refused(fn -> Native.from_file(path, 0, [1], :u8, :tpu) end)
    end

    test "refuses what is no regular file, without waiting for it", %{tmp_dir: folder} do
      pipe = Path.join(folder, "pipe")
      {_, 0} = System.cmd("mkfifo", [pipe])

      for path <- [pipe, folder, Path.join(folder, "none"), "a\0b", "/dev/zero"] do
        refused(fn -> Native.from_file(path, 0, [1], :u8) end)
      end
    end

    test "refuses a file whose size is promised only, and too large for memory", %{
      tmp_dir: folder
    } do
      path = Path.join(folder, "sparse")
      File.open!(path, [:write, :raw], &:file.pwrite(&1, 1 <<< 42, <<0>>))
      refused(fn -> Native.from_file(path, 0, [2_147_483_647, 2048], :u8) end)
    end
  end

  describe "from_binary" do
    test "refuses what does not fit together" do
      for {binary, shape, dtype} <- [
            {<<1, 2, 3>>, [1], :f32},
            {<<>>, [1], :u8},
            {<<1>>, [], :u16},
            {<<1>>, [-1], :u8},
            {<<>>, [0], :u8},
            {<<>>, [3, 0], :f32},
            {<<1>>, [-1, -1], :u8},
            {<<1>>, [1.0], :u8},
            {<<1>>, [nil], :u8},
            {<<1>>, {:a}, :u8},
            {<<1>>, [1 <<< 31], :u8},
            {<<1>>, [1 <<< 64], :u8},
            {<<>>, [1 <<< 62, 4], :u8},
            {<<0::32>>, [65_536, 65_536, 65_536, 65_536], :f32},
            {<<1>>, [1], :f8},
            {<<1>>, [1], "u8"},
            {<<1>>, [1], nil},
            {<<1::3>>, [1], :u8},
            {~c"a", [1], :u8},
            {nil, [1], :u8},
            {<<1>>, nil, :u8},
            {<<1>>, 1, :u8},
            {<<1>>, %{}, :u8}
          ] do
        refused(fn -> Native.from_binary(binary, shape, dtype) end)
      end

      large = :binary.copy(<<0>>, 1_000_000)

      for shape <- [[], [999_999], [1_000_000, 2], [-1]],
          do: refused(fn -> Native.from_binary(large, shape, :u8) end)

      refused(fn -> Native.from_binary(large, [1_000_000], :c128) end)
    end

    test "refuses an improper list" do
      refused(fn -> Native.from_binary(<<1>>, [1 | 2], :u8) end)
    end
  end

  test "every function that takes a device refuses all that is none" do
    array = x()
    [offset] = Native.run([{:full, [], 0, :s32}])
    no_device = Enum.reject(terms(), &(&1 == :cpu or is_reference(&1))) ++ [make_ref(), array]

    for device <- no_device do
      refused(fn -> Native.run([{:exp, array}], device) end)
      refused(fn -> Native.from_binary(<<1>>, [1], :u8, device) end)
      refused(fn -> Native.rms_norm(array, nil, 0.1, device) end)
      refused(fn -> Native.layer_norm(array, nil, nil, 0.1, device) end)
      refused(fn -> Native.einsum("ij->", [array], device) end)
      refused(fn -> Nif.rope(array, 2, false, 1.0, 1.0, offset, device) end)
      refused(fn -> Nif.rope_with_freqs(array, 2, false, 1.0, offset, array, device) end)
      refused(fn -> Nif.attention(array, array, array, 1.0, nil, nil, device) end)
      refused(fn -> Native.stream_new(device) end)
      refused(fn -> Native.device_info(device) end)
    end
  end

  describe "the fused kernels" do
    setup do
      [q, offset, freqs] =
        Native.run([{:full, [1, 2, 3, 4], 1, :f32}, {:full, [], 0, :s32}, {:full, [2], 1, :f32}])

      %{q: q, offset: offset, freqs: freqs}
    end

    test "refuse every term in every place", %{q: q, offset: offset, freqs: freqs} do
      for {function, good} <- [
            {:rms_norm, [q, nil, 0.1, :cpu]},
            {:layer_norm, [q, nil, nil, 0.1, :cpu]},
            {:rope, [q, 4, false, 1.0, 1.0, offset, :cpu]},
            {:rope_with_freqs, [q, 4, false, 1.0, offset, freqs, :cpu]},
            {:attention, [q, q, q, 1.0, nil, nil, :cpu]},
            {:einsum, ["abcd->", [q], :cpu]}
          ],
          place <- 0..(length(good) - 1),
          term <- terms() ++ [q, [q], [[q]], offset] do
        assert is_reference(apply(Nif, function, good))
        answered(fn -> apply(Nif, function, List.replace_at(good, place, term)) end)
      end
    end

    test "refuse wrong shapes and types", %{q: q, offset: offset, freqs: freqs} do
      [short, whole, ids] =
        Native.run([{:full, [3], 1, :f32}, {:full, [4], 1, :s32}, {:full, [3], 0, :s32}])

      refused(fn -> Native.rms_norm(q, short, 0.1) end)
      refused(fn -> Native.rms_norm(whole, nil, 0.1) end)
      refused(fn -> Native.layer_norm(q, nil, short, 0.1) end)
      refused(fn -> Native.layer_norm(q, whole, nil, 0.1) end)

      for dims <- [-4, -1, 0, 1, 3, 6, 1 <<< 40],
          do: refused(fn -> Native.rope(q, offset, dims: dims) end)

      refused(fn -> Native.rope(short, offset, dims: 2) end)
      refused(fn -> Native.rope(q, ids, dims: 4) end)
      refused(fn -> Native.rope(q, short, dims: 4) end)
      refused(fn -> Native.rope_with_freqs(q, offset, short, dims: 4) end)
      refused(fn -> Native.rope_with_freqs(q, offset, freqs, dims: 2) end)
      refused(fn -> Native.attention(q, short, q, scale: 1) end)
      refused(fn -> Native.attention(q, q, q, scale: 1, mask: whole) end)
      refused(fn -> Native.attention(q, q, q, scale: 1, sinks: short) end)
      refused(fn -> Native.attention(q, q, q, scale: 1, mask: :diagonal) end)
    end

    test "refuse missing and unknown options", %{q: q, offset: offset, freqs: freqs} do
      refused(fn -> Native.rope(q, offset, []) end)
      refused(fn -> Native.rope(q, offset, dims: 4, bass: 1) end)
      refused(fn -> Native.rope_with_freqs(q, offset, freqs, dims: 4, base: 1.0) end)
      refused(fn -> Native.attention(q, q, q, []) end)
      refused(fn -> Native.attention(q, q, q, scale: 1, causal: true) end)
    end

    test "take numbers that are not finite and give numbers or NaN", %{q: q, offset: offset} do
      for number <- [:nan, :infinity, :neg_infinity, 0, -1, 1.0e300] do
        answered(fn -> numbers(Native.rms_norm(q, nil, number)) end)
        answered(fn -> numbers(Native.layer_norm(q, nil, nil, number)) end)
        answered(fn -> numbers(Native.attention(q, q, q, scale: number)) end)
        answered(fn -> numbers(Native.rope(q, offset, dims: 4, base: number, scale: number)) end)
      end
    end

    test "take offsets at the ends of their types", %{q: q} do
      for {dtype, value} <- [
            {:s64, -(1 <<< 63)},
            {:s64, (1 <<< 63) - 1},
            {:u64, (1 <<< 64) - 1},
            {:s8, -128}
          ] do
        assert length(numbers(Native.rope(q, scalar(value, dtype), dims: 4))) == 24
      end
    end
  end

  describe "einsum" do
    test "refuses equations that are none" do
      array = x()

      for text <-
            [
              "",
              "->",
              "ij->ijk",
              "ijk->i",
              "i..j",
              "ij->iij,",
              "1",
              "é",
              <<255>>,
              "ij,jk->ik",
              "ij->z",
              "ij=>ji"
            ] ++
              [String.duplicate("a", 1000), nil, :ij, 1] do
        answered(fn -> numbers(Native.einsum(text, [array])) end)
      end

      # MLX has no more letters for an ellipsis than the equation leaves.
      [wide] = Native.run([{:full, List.duplicate(1, 60), 1, :f32}])
      letters = Enum.concat(?a..?z, ?A..?Z)
      refused(fn -> Native.einsum("...", [wide]) end)
      refused(fn -> Native.einsum(to_string(letters) <> ". . .", [wide]) end)

      for used <- 1..52 do
        [x] = Native.run([{:full, List.duplicate(1, 52), 1, :f32}])
        text = to_string(Enum.take(letters, used)) <> "..."
        answered(fn -> Native.einsum(text, [x]) end)
        refused(fn -> Native.einsum(text, [wide]) end)
      end

      refused(fn -> Native.einsum("ij->ji", []) end)
      refused(fn -> Native.einsum("ij->ji", [array | array]) end)
      refused(fn -> Native.einsum("ij,jk->ik", [array, run({:full, [3, 3], 1, :f32})]) end)
    end
  end

  describe "expressions" do
    test "that are no list are refused" do
      for term <- terms() -- [[]], do: refused(fn -> Native.run(term) end)
      assert Native.run([]) == []
    end

    test "that nest too deep are refused" do
      deep = fn depth -> Enum.reduce(1..depth, x(), fn _, e -> {:exp, e} end) end
      assert [_] = Native.run([deep.(150)])
      for depth <- [1_000, 1_000_000], do: refused(fn -> Native.run([deep.(depth)]) end)

      lists = Enum.reduce(1..100_000, x(), fn _, e -> [e] end)
      refused(fn -> Native.run([lists]) end)
      refused(fn -> Native.run([{:concatenate, lists, 0}]) end)
      refused(fn -> Native.eval(lists) end)
    end

    test "that share so much that no memory holds their graph are refused" do
      for double <- [&{:add, &1, &1}, &{:concatenate, [&1, &1], 0}, &{:let, 1, &1, &1}] do
        huge = Enum.reduce(1..100, x(), fn _, e -> double.(e) end)
        refused(fn -> Native.run([huge]) end)
        refused(fn -> Native.shape(huge) end)
      end
    end

    test "with names that are not bound are refused" do
      for e <- [
            {:var, 1},
            {:let, 1, x(), {:var, 2}},
            {:tuple, [{:let, 1, x(), {:var, 1}}, {:var, 1}]},
            {:let, 1, {:var, 1}, x()},
            {:let, :a, x(), x()},
            {:let, 1 <<< 64, x(), x()},
            {:let, 1, x()},
            {:var, nil}
          ] do
        refused(fn -> Native.run([e]) end)
      end
    end

    test "of several results are refused where one is wanted" do
      qr = {:qr, {:eye, 2, 2, 0, :f32}}
      refused(fn -> Native.run([{:exp, qr}]) end)
      for i <- [-1, 2, 1 <<< 64, nil], do: refused(fn -> Native.run([{:elem, i, qr}]) end)
      refused(fn -> Native.run([{:elem, 0, x()}]) end)
      refused(fn -> Native.run([{:tuple, x()}]) end)
    end

    test "with what memory cannot hold are refused" do
      for e <- [
            {:full, [100_000, 100_000, 1000], 0, :f32},
            {:full, [2_147_483_647, 2_147_483_647, 2_147_483_647], 0, :u8},
            {:exp, {:broadcast_to, {:full, [], 0, :f32}, [2_147_483_647, 65_536]}},
            {:arange, 0, 1.0e18, 1, :f32},
            {:eye, 2_147_483_647, 2_147_483_647, 0, :f32},
            {:repeat, x(), 2_147_483_647, 0},
            {:pad, x(), [0], [2_147_483_647], [2_147_483_647], scalar(0.0)}
          ] do
        refused(fn -> Native.run([e]) end)
      end
    end

    test "with numbers that do not fit are refused or saturate" do
      refused(fn -> Native.run([{:full, [1], 1 <<< 64, :u64}]) end)
      refused(fn -> Native.run([{:full, [1], {:complex, 1, 2}, :f32}]) end)
      refused(fn -> Native.run([{:full, [1], {:complex, nil, 2}, :c64}]) end)
      assert Native.item(run({:full, [], 1.0e300, :f32})) == :infinity
      assert Native.item(run({:full, [], :nan, :s64})) == 0
    end
  end

  describe "the allocator" do
    test "refuses limits that are no sizes" do
      for function <- [&Native.set_memory_limit/1, &Native.set_cache_limit/1],
          term <- [-1, 1 <<< 64, 1.0, nil, "1", [], :infinity] do
        refused(fn -> function.(term) end)
      end
    end
  end
end
