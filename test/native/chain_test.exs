defmodule Emily.Native.ChainTest do
  # Runs of elementwise operations as one kernel, against the same operations one by one.
  use ExUnit.Case, async: true

  import Bitwise

  alias Emily.Native
  alias Emily.Native.Program

  @floats [:f32, :f64]
  @integers [:u8, :u16, :u32, :u64, :s8, :s16, :s32, :s64]
  @numbers @floats ++ @integers

  @unary [
    {@numbers, ~w(negative abs square logical_not)a},
    {@floats, ~w(sqrt floor ceil round sign isnan isinf isfinite exp log sin tanh)a},
    {@floats, ~w(rsqrt sigmoid erf erfc erfinv cbrt rectify is_positive)a},
    {[:f32], ~w(round_away)a},
    {@integers, ~w(bitwise_invert)a},
    {[:bool], ~w(logical_not)a}
  ]

  @binary [
    {@numbers, ~w(add subtract multiply maximum minimum logical_and logical_or)a},
    {@numbers, ~w(equal not_equal greater greater_equal less less_equal)a},
    {@floats, ~w(divide power arctan2)a},
    {[:f32], ~w(fmod)a},
    {@integers, ~w(floor_divide remainder fmod bitwise_and bitwise_or bitwise_xor)a},
    {@integers, ~w(wide_left_shift wide_right_shift integer_power)a},
    {[:bool], ~w(logical_and logical_or)a}
  ]

  @to_bool ~w(equal not_equal greater greater_equal less less_equal logical_and logical_or logical_not)a ++
             ~w(isnan isinf isfinite is_positive)a

  # Shapes that broadcast to the last.
  @shapes [
    [[], [5], [1, 5], [3, 1], [3, 5]],
    [[], [1], [1500]],
    [[], [40], [60, 1], [60, 40]],
    [[], [7], [2, 1, 7], [11, 7], [2, 11, 7]]
  ]

  defp v(id), do: {:var, id}
  defp pick(list), do: Enum.random(list)

  defp names(table, type),
    do: for({types, names} <- table, type in types, name <- names, do: name)

  # Numbers of all sizes, of floats those too that are none.
  defp array(shape, type) do
    count = Enum.product(shape)

    bytes =
      for _ <- 1..count, into: <<>> do
        number = Enum.random([0, 1, 2, 3, 7, 100, :rand.uniform(1000)])

        case type do
          :f32 ->
            pick([
              <<number / 7::float-32-native>>,
              <<-number / 3::float-32-native>>,
              <<:rand.uniform(0xFFFFFFFF)::32>>
            ])

          :f64 ->
            pick([<<number / 7::float-64-native>>, <<-number / 3::float-64-native>>])

          :bool ->
            <<rem(number, 2)>>

          integer ->
            pick([number, -number, :rand.uniform(1 <<< 62)]) |> bits(width(integer))
        end
      end

    Native.from_binary(bytes, shape, type)
  end

  defp width(type), do: type |> Atom.to_string() |> String.slice(1..-1//1) |> String.to_integer()
  defp bits(number, width), do: <<number::size(width)-native>>

  # A step on values of known types, and the type that it gives.
  defp step(values) do
    {id, type} = pick(values)
    same = for {other, ^type} <- values, do: other
    flags = for {other, :bool} <- values, do: other

    case :rand.uniform(12) do
      kind when kind <= 5 ->
        op = pick(names(@binary, type))
        {{op, v(id), v(pick(same))}, if(op in @to_bool, do: :bool, else: type)}

      kind when kind <= 8 ->
        op = pick(names(@unary, type))
        {{op, v(id)}, if(op in @to_bool, do: :bool, else: type)}

      9 when flags != [] ->
        {{:where, v(pick(flags)), v(id), v(pick(same))}, type}

      10 when type == :f32 ->
        {pick([{:chop, v(id), 2.5}, {:clip, v(id), v(pick(same)), v(pick(same))}]), type}

      10 when type != :bool ->
        {{:clip, v(id), v(pick(same)), v(pick(same))}, type}

      11 when type in @floats ->
        to = pick(@integers)
        {{:to_integer, v(id), to}, to}

      _ ->
        to = pick(if type in @floats, do: @floats ++ [:bool], else: @numbers ++ [:bool])
        {{:astype, v(id), to}, to}
    end
  end

  defp program(parameters) do
    {steps, values} =
      Enum.map_reduce(1..(3 + :rand.uniform(25)), parameters, fn _, values ->
        {expression, type} = step(values)
        id = length(values)
        {{id, expression}, [{id, type} | values]}
      end)

    ids = for {id, _} <- parameters, do: id
    others = for _ <- 1..:rand.uniform(2), do: v(elem(pick(values), 0))
    {Enum.sort(ids), steps, [v(length(values) - 1) | others]}
  end

  # Which NaN an operation gives is left to the processor.
  defp same?(a, a, _), do: true

  defp same?(<<a::32-native, x::binary>>, <<b::32-native, y::binary>>, :f32),
    do: (a == b or (nan32?(a) and nan32?(b))) and same?(x, y, :f32)

  defp same?(<<a::64-native, x::binary>>, <<b::64-native, y::binary>>, :f64),
    do: (a == b or (nan64?(a) and nan64?(b))) and same?(x, y, :f64)

  defp same?(_, _, _), do: false

  defp nan32?(bits), do: (bits &&& 0x7FFFFFFF) > 0x7F800000
  defp nan64?(bits), do: (bits &&& 0x7FFFFFFFFFFFFFFF) > 0x7FF0000000000000

  @tag :f64
  test "mean bit for bit what the operations do" do
    for round <- 1..300 do
      :rand.seed(:exsss, round)
      shapes = pick(@shapes)
      types = for _ <- 1..(1 + :rand.uniform(3)), do: pick(@numbers)
      shaped = for type <- [hd(types) | types], do: {pick([List.last(shapes) | shapes]), type}
      arrays = for {shape, type} <- shaped, do: array(shape, type)
      parameters = for {{_, type}, id} <- Enum.with_index(shaped), do: {id, type}
      function = program(parameters)

      [plain, fused] =
        for fuse <- [false, true] do
          results = function |> Program.compile(fuse: fuse) |> Program.run(arrays)

          for result <- results,
              do: {Native.shape(result), Native.dtype(result), Native.to_binary(result)}
        end

      for {{shape, type, one}, {fused_shape, fused_type, other}} <- Enum.zip(plain, fused) do
        assert {shape, type} == {fused_shape, fused_type}, "round #{round}: #{inspect(function)}"
        assert same?(one, other, type), "round #{round}: #{inspect(function)}"
      end
    end
  end

  # Whole numbers, of which f32 has every sum and product.
  test "are reduced as they are computed" do
    for round <- 1..60 do
      :rand.seed(:exsss, round)
      shape = pick([[5], [3, 5], [1500], [60, 40], [2, 11, 7], [40_000], [3, 20_000], [300, 90]])
      count = Enum.product(shape)
      [x, y] = for _ <- 1..2, do: for(_ <- 1..count, do: :rand.uniform(17) - 9)
      axes = for at <- 0..(length(shape) - 1), :rand.uniform(2) == 1, do: at
      axes = if axes == [], do: [0], else: axes
      {op, of} = pick(sum: &+/2, max: &max/2, min: &min/2)
      arrays = for list <- [x, y], do: Native.from_binary(f32s(list), shape, :f32)
      steps = [{2, {:multiply, v(0), v(1)}}, {3, {:subtract, v(2), v(0)}}]
      function = {[0, 1], steps, [{op, v(3), axes, pick([true, false])}]}

      wanted =
        Enum.zip_with(x, y, fn x, y -> x * y - x end)
        |> Enum.with_index()
        |> Enum.group_by(fn {_, at} -> kept(at, shape, axes) end, &elem(&1, 0))
        |> Enum.sort()
        |> Enum.map(fn {_, numbers} -> Enum.reduce(numbers, of) end)

      for fuse <- [nil, false] do
        [result] = function |> Program.compile(fuse: fuse) |> Program.run(arrays)
        numbers = for <<x::float-32-native <- Native.to_binary(result)>>, do: x
        # Zeros are equal, whatever their signs.
        assert Enum.zip_with(numbers, wanted, &==/2) |> Enum.all?(), "#{round}, #{inspect(fuse)}"
      end
    end
  end

  defp f32s(list), do: for(x <- list, into: <<>>, do: <<x::float-32-native>>)

  # The place of an element along the axes that stay.
  defp kept(at, shape, axes) do
    {place, _} =
      shape
      |> Enum.with_index()
      |> Enum.reverse()
      |> Enum.map_reduce(at, fn {size, axis}, left ->
        {if(axis in axes, do: 0, else: rem(left, size)), div(left, size)}
      end)

    Enum.reverse(place)
  end

  test "are reduced with whatever else reads them, broadcasts and transposed arrays" do
    x = {:reshape, {:arange, 0, 3600, 1, :f32}, [60, 60]}
    [x, turned, row] = Native.run([x, {:transpose, x, [1, 0]}, {:arange, 0, 60, 1, :f32}])

    for {one, other} <- [{x, turned}, {turned, row}, {x, x}], axis <- [0, 1] do
      mean = {2, {:sum, {:multiply, v(0), v(1)}, [axis], true}}
      off = {3, {:subtract, v(0), v(2)}}
      steps = [mean, off, {4, {:square, v(3)}}]

      for results <- [[{:sum, v(4), [axis], false}], [{:max, v(4), [0, 1], true}, v(4)]] do
        [plain, chained] =
          for fuse <- [false, nil] do
            {[0, 1], steps, results} |> Program.compile(fuse: fuse) |> Program.run([one, other])
          end

        assert Enum.map(plain, &Native.to_binary/1) == Enum.map(chained, &Native.to_binary/1)
      end
    end
  end

  describe "over rows, which know their totals," do
    # Axes of rows, and a shape with these at its end.
    @rows [{1, [3, 5]}, {1, [60, 40]}, {2, [2, 11, 7]}, {1, [3, 1500]}, {2, [4, 2, 1000]}] ++
            [{1, [1025]}, {1, [2, 33_000]}, {1, [700, 2]}, {1, [1, 90]}]

    test "mean bit for bit what the operations do" do
      for round <- 1..150 do
        :rand.seed(:exsss, round)
        {inner, shape} = pick(@rows)
        outer = Enum.drop(shape, -inner)
        kept = outer ++ List.duplicate(1, inner)
        others = [shape, kept, Enum.take(shape, -inner), []]
        arrays = [array(shape, :f32) | for(_ <- 1..3, do: array(pick(others), :f32))]
        forms = %{wide: [0], any: [0, 1, 2, 3], narrow: []}
        {steps, _} = Enum.map_reduce(4..12, forms, &row_step(&1, &2, {inner, shape, outer, kept}))
        function = {[0, 1, 2, 3], steps, [pick([v(12), {:subtract, v(12), v(0)}])]}

        [plain, chained] =
          for fuse <- [false, nil] do
            [result] = function |> Program.compile(fuse: fuse) |> Program.run(arrays)
            {Native.shape(result), Native.to_binary(result)}
          end

        assert elem(plain, 0) == elem(chained, 0), "round #{round}: #{inspect(function)}"

        assert same?(elem(plain, 1), elem(chained, 1), :f32),
               "round #{round}: #{inspect(function)}"
      end
    end

    # A total, something of totals, the same along the rows, or something of rows.
    defp row_step(id, forms, {inner, shape, outer, kept}) do
      axes = Enum.to_list(length(outer)..(length(shape) - 1))
      total = {pick([:sum, :max, :min]), v(pick(forms.wide)), axes, true}
      narrow = fn -> v(pick(forms.narrow)) end
      wide = {pick([:subtract, :multiply, :maximum]), v(pick(forms.wide)), v(pick(forms.any))}

      {kind, step} =
        case {:rand.uniform(6), forms.narrow} do
          {1, _} -> {:narrow, total}
          {_, []} -> {:wide, wide}
          {2, _} -> {:narrow, {:multiply, narrow.(), narrow.()}}
          {3, _} -> {:narrow, {:reshape, {:negative, {:reshape, narrow.(), outer}}, kept}}
          {4, _} when inner == 1 -> {:wide, {:broadcast_to, narrow.(), shape}}
          _ -> {:wide, wide}
        end

      forms = Map.update!(forms, kind, &[id | &1])
      {{id, step}, Map.update!(forms, :any, &[id | &1])}
    end

    test "write over what was given" do
      x = {:reshape, {:arange, 0, 6000, 1, :f32}, [3, 2000]}
      most = {1, {:max, v(0), [1], true}}
      steps = [most, {2, {:exp, {:subtract, v(0), v(1)}}}, {3, {:sum, v(2), [1], true}}]
      function = {[0], steps, [{:divide, v(2), v(3)}]}

      results =
        for fuse <- [false, nil], donated <- [[], [0]] do
          arrays = Native.run([x])
          program = Program.compile(function, fuse: fuse)
          no_call = fn _, _ -> [] end
          [result] = Program.run(program, arrays, Native.default_device(), no_call, donated)
          Native.to_binary(result)
        end

      assert [_] = Enum.uniq(results)
    end
  end

  @tag :cpu
  test "write over arrays that nobody holds, and over no other" do
    function =
      {[0], [{1, {:add, v(0), v(0)}}, {2, {:multiply, v(1), v(0)}}], [{:subtract, v(2), v(0)}]}

    program = Program.compile(function, fuse: true)
    [x] = Native.run([{:arange, 0, 4096, 1, :f32}])

    for _ <- 1..3 do
      [y] = Program.run(program, [x])
      [z] = Program.run(program, [y])

      assert Native.to_binary(z) ==
               for(i <- 0..4095, into: <<>>, do: <<twice(twice(i))::float-32-native>>)
    end

    assert Native.to_binary(x) == for(i <- 0..4095, into: <<>>, do: <<i::float-32-native>>)
  end

  # Rounded as f32 does.
  defp twice(x) do
    round32 = fn x -> with <<y::float-32>> <- <<x::float-32>>, do: y end
    round32.(round32.(round32.(x + x) * x) - x)
  end

  test "take transposed, reversed and strided arrays" do
    x = {:reshape, {:arange, 0, 3600, 1, :f32}, [60, 60]}
    layouts = [x, {:transpose, x, [1, 0]}, {:flip, x, [0]}, {:flip, {:transpose, x, [1, 0]}, [1]}]

    for one <- layouts, other <- layouts do
      arrays = Native.run([one, other])

      function =
        {[0, 1], [{2, {:multiply, v(0), v(1)}}],
         [{:where, {:less, v(2), v(0)}, v(1), {:negative, v(2)}}]}

      [plain, fused] =
        for fuse <- [false, true],
            do: function |> Program.compile(fuse: fuse) |> Program.run(arrays)

      assert Enum.map(plain, &Native.to_binary/1) == Enum.map(fused, &Native.to_binary/1)
    end
  end

  test "stand in branches that nest deeply" do
    deep =
      Enum.reduce(1..500, {[], [], [{:exp, {:negative, {:add, v(0), v(0)}}}]}, fn _, inner ->
        {[], [], [{:elem, 0, {:cond, {:full, [], 1, :bool}, inner, {[], [], [v(0)]}}}]}
      end)

    {[], [], results} = deep
    program = Program.compile({[0], [], results}, fuse: true)
    [x] = Native.run([{:full, [3], 0.0, :f32}])
    assert [y] = Program.run(program, [x])
    assert Native.to_binary(y) == for(_ <- 1..3, into: <<>>, do: <<1.0::float-32-native>>)
  end

  test "refuse what the operations refuse" do
    for {bad, message} <- [
          {[{:add, {:exp, v(0)}, v(1)}], ~r/broadcast/},
          {[{:negative, {:exp, v(0), v(0)}}], ~r/exp: takes 1 arguments/},
          {[{:negative, {:add, v(0)}}], ~r/add: argument 2 is missing/},
          {[{:negative, {:astype, v(0), 3}}], ~r/must be a type/}
        ] do
      program = Program.compile({[0, 1], [], bad}, fuse: true)
      arrays = Native.run([{:full, [2], 1.0, :f32}, {:full, [3], 1.0, :f32}])
      error = catch_error(Program.run(program, arrays))
      assert Exception.message(error) =~ message
    end
  end
end
