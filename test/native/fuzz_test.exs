Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.FuzzTest do
  # Random expressions, most of them wrong in some way, from a fixed seed. Each is refused or gives
  # an array that can be read; none ends the VM.
  use NativeCase, async: true

  @cases 10_000

  @one ~w(abs negative exp expm1 log sqrt sign floor round cbrt round_away logical_not bitwise_invert isnan real imag
          conjugate contiguous erf sigmoid arctan)a
  @two ~w(add subtract divide floor_divide remainder fmod integer_power maximum arctan2 logaddexp equal logical_and
          bitwise_and left_shift right_shift wide_left_shift wide_right_shift matmul)a
  @reductions ~w(sum prod max min mean all any logsumexp softmax)a
  @along ~w(argmax argmin argmax_nan argmin_nan cumsum cumprod cummax cummin logcumsumexp)a
  @decompositions ~w(qr lu lu_factor inv det)a
  @texts ["", "->", "ij," | ~w(ij,jk->ik ii->i ...ij->...ji i,i ab,bc,cd->ad 1 ij-> i..j é iii
                        ij,jk->iz A,B->AB ij->ijk)]

  test "no expression ends the VM" do
    :rand.seed(:exsss, {1, 2, 3})
    pool = for _ <- 1..60, do: random_array()

    outcomes =
      for _ <- 1..@cases, reduce: %{} do
        outcomes -> Map.update(outcomes, outcome(expression(pool)), 1, &(&1 + 1))
      end

    # Enough of both kinds that the cases say something.
    assert outcomes.computed > div(@cases, 20)
    assert outcomes[ArgumentError] > div(@cases, 20)
    assert outcomes |> Map.values() |> Enum.sum() == @cases
  end

  defp outcome(expression) do
    for array <- Native.run([expression], :cpu), Native.nbytes(array) < 100_000_000 do
      assert byte_size(Native.to_binary(array)) == Native.nbytes(array)
    end

    :computed
  rescue
    error in [ArgumentError, Emily.Error] -> error.__struct__
  end

  defp random_array do
    shape =
      if chance(0.1),
        do: [],
        else: for(_ <- 1..pick([1, 2, 2, 3, 3, 4]), do: pick([1, 2, 2, 3, 4, 4, 6]))

    dtype = if chance(0.5), do: :f32, else: pick(dtypes())
    count = Enum.product(shape)

    bytes =
      if dtype == :bool,
        do: :binary.copy(<<pick([0, 1])>>, count),
        else: :rand.bytes(count * size(dtype))

    Native.from_binary(bytes, shape, dtype, :cpu)
  end

  defp pick(list), do: Enum.random(list)
  defp chance(share), do: :rand.uniform() < share
  defp flag, do: pick([true, false])
  defp small, do: pick([0, 1, 2, 3, -1, -2, 1, 1, 2, 2, 3])

  defp integer do
    pick([0, 1, 2, 3, -1, -2, -3, 5, 7, 100, -100, 1_000_000])
    |> either(pick([2 ** 31 - 1, -(2 ** 31), 2 ** 32, 2 ** 63 - 1]))
  end

  defp either(usual, odd), do: if(chance(0.75), do: usual, else: odd)
  defp integers, do: for(_ <- 1..pick([1, 2, 3, 4]), do: small() |> either(integer()))
  defp integers_or_none, do: if(chance(0.1), do: [], else: integers())

  defp number do
    finite = [0, 1, -1, 1.5, -0.0, 1.0e300, 1.0e-5, 2 ** 64 - 1, {:complex, 1, 2.0}]
    pick([:nan, :infinity, :neg_infinity | finite])
  end

  defp index_type, do: pick([:s32, :u8, :s64, :u64, :s8])
  defp several(pool), do: for(_ <- 1..pick([0, 1, 2, 3])//1, do: pick(pool))
  defp maybe(pool), do: if(flag(), do: nil, else: pick(pool))
  defp sizes(array), do: array |> Native.shape() |> Tuple.to_list()

  defp expression(pool) do
    kinds = ~w(plain plain shape shape fitting fitting index index algebra conv fused odd)a
    expression(pick(kinds), pool, pick(pool))
  end

  defp expression(:plain, pool, x) do
    y = pick(pool)

    pick([
      {pick(@one), x},
      {pick(@two), x, y},
      {:astype, x, pick(dtypes())},
      {:view, x, pick(dtypes())},
      {:where, x, y, pick(pool)},
      {:clip, x, y, pick(pool)},
      {:full, integers_or_none(), number(), pick(dtypes())},
      {:arange, number(), number(), number(), pick(dtypes())},
      {:eye, small(), small(), integer(), pick(dtypes())},
      {pick(@reductions), x, integers_or_none(), flag()},
      {pick(@along), x, small(), flag()},
      {pick([:sort, :argsort]), x, small(), pick([true, false])},
      {:top_k, x, small()}
    ])
  end

  defp expression(:shape, pool, x) do
    pick([
      {pick(~w(reshape transpose broadcast_to expand_dims squeeze flip tile)a), x,
       integers_or_none()},
      {:slice, x, integers_or_none(), integers_or_none(), integers_or_none()},
      {pick(~w(slice_update slice_update_add slice_update_max)a), x, pick(pool), integers(),
       integers(), integers()},
      {:slice_dynamic, x, pick(pool), integers_or_none(), integers_or_none()},
      {:slice_update_dynamic, x, pick(pool), pick(pool), integers_or_none()},
      {pick([:concatenate, :stack]), several(pool), small() |> either(integer())},
      {:concatenate, [x, x], small()},
      {:pad, x, integers_or_none(), integers_or_none(), integers_or_none(), {:full, [], 0, :f32}},
      {:as_strided, x, integers_or_none(), integers_or_none(), integer()},
      {pick([:tril, :triu]), x, integer()},
      {:diagonal, x, small(), small(), small()},
      {:repeat, x, integer(), small()}
    ])
  end

  # Slices whose bounds fit, so that what is read and written is at the edges.
  defp expression(:fitting, pool, x) do
    sizes = sizes(x)
    [zeros, ones] = for i <- [0, 1], do: Enum.map(sizes, fn _ -> i end)
    axes = Enum.to_list(0..(length(sizes) - 1)//1)
    fewer = Enum.map(sizes, &max(&1 - 1, 1))
    starts = {:full, [max(length(sizes), 1)], pick([-5, 0, 3, 100]), index_type()}

    pick([
      {:slice, x, zeros, sizes, Enum.map(sizes, fn _ -> small() end)},
      {pick(~w(slice_update slice_update_add slice_update_prod slice_update_min)a), x, pick(pool),
       zeros, sizes, ones},
      {:slice_dynamic, x, starts, axes, fewer},
      {:slice_update_dynamic, x, {:full, fewer, 1, :f32}, starts, axes}
    ])
  end

  defp expression(:index, pool, x) do
    sizes = sizes(x)
    rows = [1 | Enum.drop(sizes, 1)]
    far = {:full, [3], integer(), index_type()}
    scatters = ~w(scatter scatter_add scatter_max scatter_prod scatter_min)a

    pick([
      {pick([:take, :take_along_axis]), x, pick(pool), small()},
      {pick([:take, :take_along_axis]), x, {:full, sizes, integer(), index_type()}, small()},
      {:gather, x, several(pool), integers_or_none(), integers_or_none()},
      {:gather, x, [far], [0], rows},
      {pick(scatters), x, several(pool), pick(pool), integers_or_none()},
      {pick(scatters), x, [far], {:full, [3 | rows], 1, pick(dtypes())}, [0]}
    ])
  end

  defp expression(:algebra, pool, x) do
    shape = pick([[2, 2], [3, 3], [2, 3], [4, 2, 2], [3]])
    matrix = pick([x, {:full, shape, number(), pick([:f32, :f64])}])
    y = pick([matrix, pick(pool)])

    pick([
      {pick(@decompositions), matrix},
      {pick([:cholesky, :eigh, :svd]), matrix, flag()},
      {:solve, matrix, y},
      {:solve_triangular, matrix, y, flag()},
      {:elem, small(), {:qr, matrix}},
      {pick([:fft, :ifft, :rfft, :irfft]), x, small(), small()}
    ])
  end

  defp expression(:conv, pool, x) do
    spatial = pick([1, 2, 3])
    groups = pick([1, 2, 3])
    each = fn list -> for _ <- 1..spatial, do: pick(list) end
    input = {:full, [2] ++ each.([1, 3, 5]) ++ [6], 1, pick([:f32, :f16, :s32, :c64, :f64])}
    kernel = {:full, [6] ++ each.([1, 2, 3]) ++ [div(6, groups)], 1, :f32}
    pads = [0, 1, 2, 9]

    pick([
      {:conv, x, pick(pool), integers(), integers(), integers(), integers(), integers(), small(),
       flag(), flag()},
      {:conv, input, kernel, each.([1, 2]), each.(pads), each.(pads), each.([1, 2]),
       each.([1, 2]), groups, flag(), flag()}
    ])
  end

  defp expression(:fused, pool, x) do
    q =
      {:full, [1, 2, pick([1, 2, 3]), pick([1, 4, 5])], number(), pick([:f32, :f16, :bf16, :f64])}

    mask = pick([nil, :causal, pick(pool), {:full, [pick([1, 2, 3])], 0, pick(dtypes())}])
    offset = pick([pick(pool), {:full, [], 0, :s32}])

    pick([
      {:rms_norm, x, maybe(pool), number()},
      {:layer_norm, x, maybe(pool), maybe(pool), number()},
      {:rope, x, small(), flag(), pick([nil, 10_000.0, 0, -1.0, :nan]), number(), offset,
       maybe(pool)},
      {:attention, x, pick(pool), pick(pool), number(), mask, maybe(pool)},
      {:attention, q, q, q, number(), mask, pick([nil, {:full, [2], 0, :f32}])},
      {:cached_attention, q, q, q, number(), pick([x, {:full, [1, pick([1, 2, 3])], 1, :u8}]),
       offset},
      {:einsum, pick(@texts), several(pool)}
    ])
  end

  defp expression(:odd, _pool, x) do
    pick([
      {:let, 1, x, {:add, {:var, 1}, {:var, pick([1, 2])}}},
      {:tuple, [x, {:exp, x}]},
      {:sum, {:broadcast_to, {:full, [], 0, :u8}, [1000, 1000]}, [0, 1], false},
      {:broadcast_to, {:full, [], 0, :f32}, [100_000, 1_000_000]},
      {:full, [100_000, 100_000], 0, :f32},
      pick([1, 1.5, nil, :causal, "x", [], [1], make_ref(), self(), %{}]),
      pick([{}, {:nope, 1}, {:add, 1, 2}, {1, 2}]),
      pick([{:add, x}, {:add, x, x, x}, {:var, 1}])
    ])
  end
end
