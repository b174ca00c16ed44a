defmodule Emily.Compiler.ShardTest do
  # Functions over a mesh, on streams of one device, against Nx.BinaryBackend and the results that EXLA documents.
  use Emily.CompilerCase, async: true

  import Nx, only: :sigils

  alias Nx.Mesh

  defmodule Functions do
    @moduledoc false
    import Nx.Defn

    defn halved(x) do
      {_, _, x} =
        while {n = 0, greatest = Nx.reduce_max(x), x}, n < 3 and greatest > 0.01 do
          {n + 1, greatest / 2, x / 2}
        end

      x * 2
    end

    # The branches share a sum with what comes after, and know tensors that are split.
    defn chosen(x) do
      total = Nx.sum(x)
      twice = Nx.dot(x, [2], [0], x, [2], [0])

      y =
        cond do
          total > 1000 -> Nx.sum(twice) + x
          Nx.all(x > -2) -> Nx.exp(x) * total + Nx.reduce_max(twice)
          true -> x
        end

      y + total
    end
  end

  @device Emily.Native.default_device()

  defp sharded(fun, shape, shardings, args, opts \\ []) do
    mesh = %Mesh{name: "mesh", shape: shape}
    devices = List.duplicate(@device, Tuple.product(shape))
    own = [compiler: Emily.Compiler, input_shardings: shardings, devices: devices]
    Nx.Defn.shard_jit(fun, mesh, Keyword.merge(own, opts)).(args)
  end

  # The parts of a tensor, by hand: slices at the coordinates of each partition.
  defp parts(tensor, sharding, shape) do
    for partition <- 0..(Tuple.product(shape) - 1) do
      {at, _} =
        Enum.map_reduce(
          Enum.reverse(Tuple.to_list(shape)),
          partition,
          &{rem(&2, &1), div(&2, &1)}
        )

      at = Enum.reverse(at)

      Enum.reduce(sharding, tensor, fn {axis, axes}, part ->
        factor = Enum.reduce(axes, 1, &(elem(shape, &1) * &2))
        place = Enum.reduce(axes, 0, &(Enum.at(at, &1) + elem(shape, &1) * &2))
        size = div(elem(tensor.shape, axis), factor)
        Nx.slice_along_axis(part, place * size, size, axis: axis)
      end)
    end
  end

  # Each partition has its part of what Nx.BinaryBackend gives for the whole.
  defp assert_sharded(fun, shape, args, expected_shardings, opts \\ []) do
    {tensors, shardings} = Enum.unzip(args)

    of_each =
      for {tensor, sharding} <- args do
        parts(tensor, sharding, shape)
      end
      |> Enum.zip_with(& &1)

    results = sharded(fun, shape, shardings, of_each, opts)
    expected = Nx.Defn.jit_apply(fun, tensors, compiler: Nx.Defn.Evaluator)
    [leaves | _] = all = for result <- results, do: Nx.Defn.Composite.flatten_list([result])
    whole = Nx.Defn.Composite.flatten_list([expected])
    expected_shardings = List.wrap(expected_shardings)
    assert length(leaves) == length(expected_shardings)
    assert length(results) == Tuple.product(shape)

    for {whole, sharding, at} <- Enum.zip([whole, expected_shardings, 0..length(whole)]),
        {part, got} <- Enum.zip(parts(whole, sharding, shape), Enum.map(all, &Enum.at(&1, at))) do
      assert Nx.to_template(got) == Nx.to_template(part)
      assert got.data.device in [@device, :host]
      assert_equal(got, part, tolerance: opts[:tolerance] || 1.0e-5)
    end

    results
  end

  defp waves(shape, type \\ :f32) do
    shape |> Nx.iota(type: :f32) |> Nx.multiply(0.37) |> Nx.sin() |> Nx.as_type(type)
  end

  # What is planned anew for a function: gathers and exchanges.
  defp planned(fun) do
    ref = make_ref()
    handler = {__MODULE__, ref}
    :telemetry.attach(handler, [:emily, :shard], &Emily.Telemetry.echo/4, self())
    fun.()
    :telemetry.detach(handler)
    assert_received {[:emily, :shard], measurements, metadata}
    {measurements, metadata.gathered}
  end

  describe "results that EXLA documents" do
    test "of two outputs that are split differently" do
      fun = fn x, y -> {Nx.add(x, y), Nx.multiply(y, 2)} end

      args = [
        [~MAT[0 1 2 3] |> Nx.transpose(), ~MAT[100 101 102 103] |> Nx.transpose()],
        [~MAT[10 11 12 13] |> Nx.transpose(), ~MAT[100 101 102 103] |> Nx.transpose()],
        [~MAT[4 5 6 7] |> Nx.transpose(), ~MAT[104 105 106 107] |> Nx.transpose()],
        [~MAT[14 15 16 17] |> Nx.transpose(), ~MAT[104 105 106 107] |> Nx.transpose()]
      ]

      results = sharded(fun, {2, 2}, [%{0 => [0], 1 => [1]}, %{0 => [0]}], args)

      assert for({sum, double} <- results, do: {Nx.to_flat_list(sum), Nx.to_flat_list(double)}) ==
               [
                 {[100, 102, 104, 106], [200, 202, 204, 206]},
                 {[110, 112, 114, 116], [200, 202, 204, 206]},
                 {[108, 110, 112, 114], [208, 210, 212, 214]},
                 {[118, 120, 122, 124], [208, 210, 212, 214]}
               ]

      for {sum, double} <- results, do: assert({sum.shape, double.shape} == {{4, 1}, {4, 1}})
    end

    test "of a transposition of rows that two mesh axes split" do
      x = Nx.iota({4, 4})
      args = for row <- 0..3, do: [x[row..row]]
      results = sharded(&Nx.transpose/1, {2, 2}, [%{0 => [0, 1], 1 => []}], args)

      assert Enum.map(results, &Nx.to_list/1) ==
               [
                 [[0], [1], [2], [3]],
                 [[4], [5], [6], [7]],
                 [[8], [9], [10], [11]],
                 [[12], [13], [14], [15]]
               ]
    end

    test "of a mesh of three axes" do
      args = for n <- [1, 3, 5, 7], do: [Nx.tensor([[[n, n], [n + 1, n + 1]]])]
      results = sharded(&Nx.add(&1, 1), {2, 1, 2}, [%{0 => [0], 1 => [1], 2 => [2]}], args)

      assert Enum.map(results, &Nx.to_list/1) ==
               for(n <- [2, 4, 6, 8], do: [[[n, n], [n + 1, n + 1]]])
    end

    test "of windows, which overlap" do
      args = for row <- [[1, 2], [3, 4], [5, 6], [7, 8]], do: [Nx.tensor([row])]
      shardings = [%{0 => [0], 1 => [1]}]

      for {opts, expected} <- [
            {[strides: [2, 2]], [[[14]], [[22]], [[14]], [[22]]]},
            {[padding: :same], [[[14, 18]], [[22, 12]], [[11, 13]], [[15, 8]]]},
            {[padding: :valid], List.duplicate([[14, 18, 22]], 4)}
          ] do
        results = sharded(&Nx.window_sum(&1, {2, 2}, opts), {2, 2}, shardings, args)
        assert Enum.map(results, &Nx.to_list/1) == expected
      end
    end

    for type <- [:s8, :s64, :u8, :u64, :f8, :f16, :bf16, :f32, :c64] do
      test "of #{type}" do
        tensors = for n <- 1..4, do: Nx.tensor([n], type: unquote(type))
        args = for tensor <- tensors, do: [tensor]
        opts = [native_fallback: :eval]

        # MLX has no f8.
        Emily.Fallback.with_mode(:silent, fn ->
          results = sharded(&Nx.add(&1, &1), {4}, [%{0 => [0]}], args, opts)

          for {got, tensor} <- Enum.zip(results, tensors),
              do: assert(Nx.backend_copy(got, Nx.BinaryBackend) == Nx.add(tensor, tensor))
        end)
      end
    end
  end

  describe "layers" do
    test "whose batch is split, with parameters that each partition has" do
      layer = fn x, w, b -> x |> Nx.dot(w) |> Nx.add(b) |> Nx.max(0) end
      args = [{waves({8, 6}), %{0 => [0]}}, {waves({6, 5}), %{}}, {waves({5}), %{}}]

      {counts, []} = planned(fn -> assert_sharded(layer, {4}, args, %{0 => [0]}) end)
      assert %{exchanges: 0, segments: 1, partitions: 4} = counts
    end

    test "that are split by columns" do
      layer = fn x, w, b -> x |> Nx.dot(w) |> Nx.add(b) |> Nx.sigmoid() end
      args = [{waves({3, 6}), %{}}, {waves({6, 8}), %{1 => [0]}}, {waves({8}), %{0 => [0]}}]
      {counts, []} = planned(fn -> assert_sharded(layer, {2}, args, %{1 => [0]}) end)
      assert counts.exchanges == 0
    end

    test "that are split by rows, whose products are summed" do
      layer = fn x, w, b -> x |> Nx.dot(w) |> Nx.add(b) end
      args = [{waves({3, 8}), %{1 => [0]}}, {waves({8, 5}), %{0 => [0]}}, {waves({5}), %{}}]
      {counts, []} = planned(fn -> assert_sharded(layer, {2}, args, %{}) end)
      assert %{exchanges: 1, gathers: 0, segments: 2} = counts

      # Of operands that each partition has it takes its rows.
      args = [{waves({3, 8}), %{}}, {waves({8, 5}), %{0 => [0]}}, {waves({5}), %{}}]
      {counts, []} = planned(fn -> assert_sharded(&layer.(&1, &2, &3), {4}, args, %{}) end)
      assert counts.exchanges == 1
    end

    test "one by columns and one by rows, over batches: a mesh of two axes" do
      layers = fn x, up, down -> x |> Nx.dot(up) |> Nx.tanh() |> Nx.dot(down) end

      args = [
        {waves({4, 6}), %{0 => [0]}},
        {waves({6, 8}), %{1 => [1]}},
        {waves({8, 3}), %{0 => [1]}}
      ]

      {counts, []} = planned(fn -> assert_sharded(layers, {2, 2}, args, %{0 => [0]}) end)
      assert counts.exchanges == 1
    end

    test "sums of sums are exchanged once" do
      fun = fn x, w, v -> Nx.subtract(Nx.dot(x, w), Nx.negate(Nx.dot(x, v))) end
      args = [{waves({3, 8}), %{1 => [0]}}] ++ List.duplicate({waves({8, 5}), %{0 => [0]}}, 2)
      {counts, []} = planned(fn -> assert_sharded(fun, {2}, args, %{}) end)
      assert counts.exchanges == 1
    end

    test "a step of training over batches" do
      loss = fn {w, b}, x, y ->
        prediction = x |> Nx.dot(w) |> Nx.add(b) |> Nx.tanh()
        Nx.mean(Nx.pow(Nx.subtract(prediction, y), 2))
      end

      step = fn w, b, x, y ->
        {value, {dw, db}} = Nx.Defn.value_and_grad({w, b}, &loss.(&1, x, y))
        {value, Nx.subtract(w, Nx.multiply(0.1, dw)), Nx.subtract(b, Nx.multiply(0.1, db))}
      end

      args = [
        {waves({6, 3}), %{}},
        {waves({3}), %{}},
        {waves({8, 6}), %{0 => [0]}},
        {waves({8, 3}), %{0 => [0]}}
      ]

      {counts, gathered} = planned(fn -> assert_sharded(step, {4}, args, [%{}, %{}, %{}]) end)
      assert {counts.gathers, gathered} == {0, []}
    end

    test "attention, by heads" do
      attention = fn q, k, v ->
        scores = Nx.dot(q, [3], [0, 1], k, [3], [0, 1]) |> Nx.divide(2.0)
        shifted = Nx.subtract(scores, Nx.reduce_max(scores, axes: [-1], keep_axes: true))
        weights = Nx.exp(shifted)
        weights = Nx.divide(weights, Nx.sum(weights, axes: [-1], keep_axes: true))

        weights
        |> Nx.dot([3], [0, 1], v, [2], [0, 1])
        |> Nx.transpose(axes: [0, 2, 1, 3])
        |> Nx.reshape({2, 5, 16})
      end

      qkv = List.duplicate({waves({2, 4, 5, 4}), %{0 => [0], 1 => [1]}}, 3)
      {_, []} = planned(fn -> assert_sharded(attention, {2, 2}, qkv, %{0 => [0], 2 => [1]}) end)
    end
  end

  describe "operations" do
    @x quote(do: waves({4, 6, 8}))
    @two %{0 => [0], 2 => [1]}

    for {name, fun, sharding, gathers} <- [
          {"elementwise, with numbers", quote(do: &Nx.multiply(Nx.exp(&1), 2)), @two, 0},
          {"with a constant of its shape", quote(do: &Nx.add(&1, Nx.iota({4, 6, 8}))), @two, 0},
          {"with a row", quote(do: &Nx.add(&1, Nx.iota({8}, type: :f32))), @two, 0},
          {"select", quote(do: &Nx.select(Nx.greater(&1, 0), &1, 0)), @two, 0},
          {"clip", quote(do: &Nx.clip(&1, -0.5, 0.5)), @two, 0},
          {"as_type", quote(do: &Nx.as_type(Nx.multiply(&1, 9), :s32)), @two, 0},
          {"transpose", quote(do: &Nx.transpose(&1, axes: [2, 0, 1])), %{1 => [0], 0 => [1]}, 0},
          {"sum over a whole axis", quote(do: &Nx.sum(&1, axes: [1])), %{0 => [0], 1 => [1]}, 0},
          {"sum over a split axis", quote(do: &Nx.sum(&1, axes: [0])), %{1 => [1]}, 0},
          {"sum with kept axes", quote(do: &Nx.sum(&1, axes: [0], keep_axes: true)), %{2 => [1]},
           0},
          {"sum of all", quote(do: &Nx.sum(&1)), %{}, 0},
          {"mean", quote(do: &Nx.mean(&1)), %{}, 0},
          {"greatest of a whole axis", quote(do: &Nx.reduce_max(&1, axes: [1])),
           %{0 => [0], 1 => [1]}, 0},
          {"greatest of a split axis", quote(do: &Nx.reduce_max(&1, axes: [2])), %{0 => [0]}, 1},
          {"argmax of a whole axis", quote(do: &Nx.argmax(&1, axis: 1)), %{0 => [0], 1 => [1]},
           0},
          {"argmax of a split axis", quote(do: &Nx.argmax(&1, axis: 2, keep_axis: true)),
           %{0 => [0]}, 1},
          {"argmax of all", quote(do: &Nx.argmax(&1)), %{}, 1},
          {"reshape that joins axes", quote(do: &Nx.reshape(&1, {24, 8})), %{0 => [0], 1 => [1]},
           0},
          {"reshape that parts an axis", quote(do: &Nx.reshape(&1, {4, 6, 2, 4})), @two, 0},
          {"reshape that parts an axis too far", quote(do: &Nx.reshape(&1, {4, 6, 1, 8})),
           %{0 => [0], 3 => [1]}, 0},
          {"reshape to a row", quote(do: &Nx.reshape(&1, {192})), %{0 => [0]}, 1},
          {"reshape that mixes", quote(do: &Nx.reshape(&1, {3, 64})), %{}, 1},
          {"new axis", quote(do: &Nx.new_axis(&1, 1)), %{0 => [0], 3 => [1]}, 0},
          {"squeeze", quote(do: &Nx.squeeze(Nx.new_axis(&1, 0))), @two, 0},
          {"broadcast", quote(do: &Nx.broadcast(Nx.new_axis(&1, 1), {4, 2, 6, 8})),
           %{0 => [0], 3 => [1]}, 0},
          {"slice of a whole axis", quote(do: & &1[[0..3, 1..4, 0..7]]), @two, 0},
          {"slice of a split axis", quote(do: & &1[[1..2]]), %{2 => [1]}, 1},
          {"slice from a tensor",
           quote(do: &Nx.slice(&1, [0, Nx.sum(Nx.tensor([1, 1])), 0], [4, 2, 8])), @two, 0},
          {"put_slice", quote(do: &Nx.put_slice(&1, [0, 2, 0], Nx.iota({4, 2, 8}, type: :f32))),
           @two, 0},
          {"concatenate along a whole axis",
           quote(do: &Nx.concatenate([&1, Nx.negate(&1)], axis: 1)), @two, 0},
          {"concatenate along a split axis", quote(do: &Nx.concatenate([&1, &1], axis: 0)),
           %{2 => [1]}, 1},
          {"stack", quote(do: &Nx.stack([&1, &1], axis: 1)), %{0 => [0], 3 => [1]}, 0},
          {"pad", quote(do: &Nx.pad(&1, 1.0, [{0, 0, 0}, {1, 2, 0}, {0, 0, 0}])), @two, 0},
          {"pad of a split axis", quote(do: &Nx.pad(&1, 1.0, [{1, 0, 0}, {0, 0, 0}, {0, 0, 0}])),
           %{2 => [1]}, 1},
          {"reverse", quote(do: &Nx.reverse(&1, axes: [1])), @two, 0},
          {"sort", quote(do: &Nx.sort(&1, axis: 1)), @two, 0},
          {"sort of a split axis", quote(do: &Nx.argsort(&1, axis: 2)), %{0 => [0]}, 1},
          {"take of rows",
           quote(do: &Nx.take(Nx.iota({9, 3}), Nx.as_type(Nx.abs(Nx.multiply(&1, 5)), :s32))),
           @two, 0},
          {"cumulative_sum", quote(do: &Nx.cumulative_sum(&1, axis: 1)), @two, :any},
          {"a norm", quote(do: &Emily.Fast.rms_norm(&1, Nx.iota({8}, type: :f32))),
           %{0 => [0], 2 => [1]}, :any},
          {"logical_not", quote(do: &Nx.logical_not(Nx.greater(&1, 0))), @two, 0},
          {"variance", quote(do: &Nx.variance(&1, axes: [0])), %{1 => [1]}, 0},
          {"an inverse",
           quote(do: &Nx.LinAlg.invert(Nx.add(Nx.eye(4), Nx.multiply(0.1, &1[[0..3, 0, 0..3]])))),
           %{}, :any},
          {"a loop", quote(do: &Functions.halved/1), %{}, :any},
          {"a condition", quote(do: &Functions.chosen/1), %{}, :any},
          {"random numbers",
           quote(do: &Nx.add(&1, elem(Nx.Random.uniform(Nx.Random.key(3), shape: {4, 6, 8}), 0))),
           @two, 0},
          {"reduce with a function",
           quote(do: &Nx.reduce(&1, 0.0, [axes: [1]], fn a, b -> Nx.add(a, b) end)), %{}, 1}
        ] do
      test name do
        fun = unquote(fun)
        sharding = unquote(Macro.escape(sharding))
        args = [{unquote(@x), unquote(Macro.escape(@two))}]
        {counts, _} = planned(fn -> assert_sharded(fun, {2, 2}, args, sharding) end)
        if unquote(gathers) != :any, do: assert(counts.gathers == unquote(gathers))
      end
    end

    test "that are no operation" do
      assert_sharded(& &1, {2}, [{waves({4, 2}), %{0 => [0]}}], %{0 => [0]})
      assert_sharded(&{&1, 3, &1}, {2}, [{waves({4}), %{}}], [%{}, %{}, %{}])
    end

    test "of a tensor with itself, split otherwise" do
      x = waves({4, 4})
      assert_sharded(&Nx.add(&1, Nx.transpose(&1)), {2}, [{x, %{0 => [0]}}], %{0 => [0]})
      assert_sharded(&Nx.dot(&1, &2), {2}, [{x, %{0 => [0]}}, {x, %{1 => [0]}}], %{0 => [0]})
      assert_sharded(&Nx.dot(&1, &2), {2}, [{x, %{1 => [0]}}, {x, %{1 => [0]}}], %{})
    end

    test "one after the other, each along an axis that is split" do
      fun = fn x ->
        x
        |> Nx.sort(axis: 0)
        |> Nx.add(Nx.sort(x, axis: 1))
        |> Nx.dot(Nx.reverse(x))
        |> Nx.cumulative_sum(axis: 1)
      end

      assert_sharded(fun, {2, 2}, [{waves({4, 4}), %{0 => [0], 1 => [1]}}], %{0 => [0]})
      # An axis of one partition divides nothing.
      {_, []} =
        planned(fn ->
          assert_sharded(
            &Nx.sort(&1, axis: 1),
            {2, 1},
            [{waves({4, 4}), %{0 => [0], 1 => [1]}}],
            %{0 => [0]}
          )
        end)
    end

    test "convolutions of a batch" do
      args = [{waves({4, 2, 6, 6}), %{0 => [0]}}, {waves({3, 2, 3, 3}), %{}}]

      {_, []} =
        planned(fn ->
          assert_sharded(&Nx.conv(&1, &2, padding: :same), {2}, args, %{0 => [0]})
        end)
    end
  end

  describe "arguments" do
    test "may be containers, whose tensors are split alike or each as a list says" do
      fun = fn %{x: x, y: y}, {z, w} -> {Nx.add(x, y), Nx.multiply(z, w)} end

      part = fn n ->
        [%{x: Nx.tensor([n]), y: Nx.tensor([10 * n])}, {Nx.tensor([n]), Nx.tensor(7)}]
      end

      shardings = [%{0 => [0]}, [%{0 => [0]}, %{}]]
      [{a, b}, {c, d}] = sharded(fun, {2}, shardings, [part.(1), part.(2)])
      assert Enum.map([a, b, c, d], &Nx.to_flat_list/1) == [[11], [7], [22], [14]]
    end

    test "are split by names and from behind" do
      x = Nx.iota({4, 2}, names: [:batch, :features])
      args = for rows <- [0..1, 2..3], do: [x[rows]]

      for sharding <- [%{batch: [0]}, %{-2 => [0]}, %{0 => [0], 1 => []}] do
        results = sharded(&Nx.sum(&1, axes: [:features]), {2}, [sharding], args)
        assert Enum.map(results, &Nx.to_list/1) == [[1, 5], [9, 13]]
        assert Enum.map(results, & &1.names) == [[:batch], [:batch]]
      end
    end

    test "on other backends and on Emily's give the same" do
      args = for n <- 1..2, do: [Nx.tensor([n], backend: Nx.BinaryBackend)]
      on_emily = for [x] <- args, do: [Nx.backend_copy(x, {Emily.Backend, device: @device})]

      for args <- [args, on_emily] do
        results = sharded(&{&1, Nx.sum(&1)}, {2}, [%{0 => [0]}], args)

        assert for({x, sum} <- results, do: {Nx.to_list(x), Nx.to_number(sum)}) == [
                 {[1], 3},
                 {[2], 3}
               ]
      end
    end

    test "that are wrong are refused" do
      x = Nx.iota({4, 2})
      two = [[x], [x]]
      one = [%{0 => [0]}]

      for {shape, shardings, args, opts, message} <- [
            {{2}, nil, two, [], ~r/takes :input_shardings, a list/},
            {{2}, [], two, [], ~r/has 0 entries for 1 arguments/},
            {{2}, [nil], two, [], ~r/expected a map of axes/},
            {{2}, [%{0 => 0}], two, [], ~r/expected a list of mesh axes for axis 0/},
            {{2}, [%{0 => [1]}], two, [], ~r/a mesh of 1 axes has no axis 1/},
            {{2, 1}, [%{0 => [0], 1 => [0]}], two, [], ~r/cannot both be split over axis 0/},
            {{2, 1}, [%{0 => [0], -2 => [1]}], two, [], ~r/axis 0 of a tensor was given twice/},
            {{2}, [%{3 => [0]}], two, [], ~r/given axis \(3\) invalid for shape with rank 2/},
            {{2}, [%{-3 => [0]}], two, [], ~r/given axis \(-3\) invalid for shape with rank 2/},
            {{2}, [[%{}, %{}]], two, [], ~r/for an argument of 1 tensors/},
            {{2}, one, [[x]], [], ~r/takes a list of 2 lists of arguments, got 1/},
            {{2}, one, [[x], [Nx.iota({4, 3})]], [], ~r/tensor 0 of partition 1 is/},
            {{2}, one, [[x], [Nx.iota({4, 2}, type: :f32)]], [], ~r/same shapes and types/},
            {{2}, one, two, [devices: [@device]], ~r/takes a list of 2 devices/},
            {{2}, one, two, [devices: [@device, :tpu]], ~r/each of :devices must be :cpu/},
            {{2}, one, two, [donate: [0]], ~r/takes no :donate/},
            {{0}, one, two, [], ~r/a mesh has a shape of positive integers/},
            {{2}, one, two, [partitions: 2], ~r/unknown option :partitions/}
          ] do
        assert_raise ArgumentError, message, fn ->
          sharded(&Nx.add(&1, 1), shape, shardings, args, opts)
        end
      end

      vectorized = Nx.vectorize(x, :rows)

      assert_raise ArgumentError, ~r/takes no vectorized tensors/, fn ->
        sharded(&Nx.add(&1, 1), {2}, one, [[vectorized], [vectorized]])
      end

      assert_raise ArgumentError, ~r/has no vectorized tensors/, fn ->
        sharded(&Nx.vectorize(&1, :rows), {2}, one, two)
      end
    end

    test "of hooks are refused" do
      fun = fn x -> Nx.Defn.Kernel.hook(x, :seen, fn _ -> :ok end) end

      assert_raise ArgumentError, ~r/shard_jit has no hooks/, fn ->
        sharded(fun, {2}, [%{0 => [0]}], [[Nx.tensor([1])], [Nx.tensor([2])]])
      end
    end
  end

  describe "devices" do
    alias Emily.Compiler.Shard

    test "are the CPU for all partitions there" do
      mesh = %Mesh{name: "mesh", shape: {3}}
      assert Shard.devices!(nil, %{device: :cpu}, 3, mesh) == [:cpu, :cpu, :cpu]

      assert Shard.devices!([{:cpu, 0}, :cpu, :cpu], %{device: :cpu}, 3, mesh) == [
               :cpu,
               :cpu,
               :cpu
             ]
    end

    test "are as many cards, or said" do
      cards = length(Emily.Device.cards())
      mesh = %Mesh{name: "mesh", shape: {cards + 1}}

      assert_raise ArgumentError,
                   ~r/has #{cards + 1} partitions, and this machine #{cards} GPU/,
                   fn ->
                     Shard.devices!(nil, %{device: :gpu}, cards + 1, mesh)
                   end
    end
  end

  describe "programs" do
    test "are found again" do
      fun = fn x -> Nx.multiply(Nx.sum(x), 3) end
      args = [[Nx.tensor([1, 2])], [Nx.tensor([3, 4])]]
      {_, []} = planned(fn -> sharded(fun, {2}, [%{0 => [0]}], args) end)
      ref = make_ref()
      :telemetry.attach(ref, [:emily, :shard], &Emily.Telemetry.echo/4, self())
      results = sharded(fun, {2}, [%{0 => [0]}], [[Nx.tensor([5, 6])], [Nx.tensor([7, 8])]])
      assert Enum.map(results, &Nx.to_number/1) == [78, 78]
      refute_received {[:emily, :shard], _, _}
      # Split otherwise it is another one.
      results = sharded(fun, {2}, [%{}], args)
      assert Enum.map(results, &Nx.to_number/1) == [9, 21]
      assert_received {[:emily, :shard], _, _}
      :telemetry.detach(ref)
    end

    test "may be left out" do
      args = [[Nx.tensor([1.0, 2.0])], [Nx.tensor([3.0, 4.0])]]

      for opts <- [[native: false], [check_finite: true], [cache: false], [fuse: false]] do
        results = sharded(&Nx.divide(&1, Nx.sum(&1)), {2}, [%{0 => [0]}], args, opts)
        assert_equal(Nx.concatenate(results), Nx.tensor([0.1, 0.2, 0.3, 0.4]), tolerance: 1.0e-6)
      end

      assert_raise ArithmeticError, fn ->
        sharded(&Nx.divide(&1, 0), {2}, [%{0 => [0]}], args, check_finite: true)
      end
    end

    test "are measured by Emily.Profile" do
      args = [[Nx.tensor([1.0, 2.0])], [Nx.tensor([3.0, 4.0])]]
      fun = fn -> sharded(&Nx.divide(&1, Nx.sum(&1)), {2}, [%{0 => [0]}], args) end
      profile = Emily.Profile.run(fun)

      assert_equal(Nx.concatenate(profile.result), Nx.tensor([0.1, 0.2, 0.3, 0.4]),
        tolerance: 1.0e-6
      )

      # The sums of both partitions, then what each does with the other's.
      assert Enum.map(profile.events, & &1.op) == ~w(sum sum add divide add divide)
    end

    test "raise what a partition raises" do
      # Nx 0.12 gave runtime_call options.
      fun =
        if function_exported?(Nx, :runtime_call, 4),
          do:
            &apply(Nx, :runtime_call, [
              Nx.template({2}, :f32),
              &1,
              [],
              fn _x, _ -> raise "broken" end
            ]),
          else:
            &apply(Nx, :runtime_call, [Nx.template({2}, :f32), &1, fn _x -> raise "broken" end])

      args = [[Nx.tensor([1.0])], [Nx.tensor([2.0])]]

      assert_raise RuntimeError, "broken", fn ->
        sharded(fun, {2}, [%{0 => [0]}], args)
      end
    end
  end
end
