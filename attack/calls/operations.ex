defmodule Attack.Calls.Operations do
  @moduledoc false
  # Expressions of each operation by its name: arguments of the kinds that it takes, whose values fit more often than not,
  # and now and then any term in the place of one, one too many or one too few.

  import Attack.Draw
  alias Attack.Calls.{Pool, Terms}
  alias Emily.Native

  @unary ~w(abs negative exp expm1 log log1p log2 log10 sqrt rsqrt square sin cos tan arcsin arccos arctan sinh cosh tanh
            arcsinh arccosh arctanh erf erfc erfinv sigmoid cbrt sign floor ceil round round_away trunc logical_not
            bitwise_invert isnan isinf isfinite isposinf isneginf real imag conjugate contiguous gelu gelu_tanh
            rectify is_positive)a
  @binary ~w(add subtract multiply divide floor_divide remainder fmod power integer_power maximum minimum arctan2 logaddexp
             equal not_equal greater greater_equal less less_equal logical_and logical_or bitwise_and bitwise_or bitwise_xor
             left_shift right_shift wide_left_shift wide_right_shift swiglu geglu geglu_tanh)a
  @axes ~w(sum prod max min mean all any logsumexp softmax)a
  @axis ~w(argmax argmin argmax_nan argmin_nan window_argmax window_argmin cumsum cumprod cummax cummin logcumsumexp sort argsort)a
  @updates ~w(slice_update slice_update_add slice_update_prod slice_update_max slice_update_min)a
  @scatters ~w(scatter scatter_add scatter_prod scatter_max scatter_min)a
  @linear ~w(qr lu lu_factor inv det)a
  @transforms ~w(fft ifft rfft irfft)a

  @signatures Map.new(
                for(name <- @unary, do: {name, [:array]}) ++
                  for(name <- @binary, do: {name, [:array, :alike]}) ++
                  for(name <- @axes, do: {name, [:array, :axes, :flag]}) ++
                  for(name <- @updates, do: {name, [:array, :alike, :starts, :stops, :ones]}) ++
                  for(name <- @scatters, do: {name, [:array, :indices, :any_array, :axes]}) ++
                  for(name <- @linear, do: {name, [:matrix]}) ++
                  for(name <- @transforms, do: {name, [:array, :small, :axis]}) ++
                  for(
                    name <- @axis -- [:window_argmax, :window_argmin],
                    do: {name, [:array, :axis, :flag]}
                  )
              )
              |> Map.merge(%{
                window_argmax: [:array, :axis],
                window_argmin: [:array, :axis],
                chop: [:array, :number],
                matmul: [:matrix, :matrix],
                astype: [:array, :type],
                to_integer: [:array, :type],
                view: [:array, :type],
                where: [:any_array, :array, :alike],
                clip: [:array, :scalar, :scalar],
                full: [:shape, :number, :type],
                arange: [:number, :number, :number, :type],
                eye: [:small, :small, :small, :type],
                reshape: [:array, :same_size],
                transpose: [:array, :permutation],
                broadcast_to: [:array, :larger],
                expand_dims: [:array, :axes],
                squeeze: [:array, :axes],
                flip: [:array, :axes],
                slice: [:array, :starts, :stops, :ones],
                slice_dynamic: [:array, :index, :all_axes, :stops],
                slice_update_dynamic: [:array, :alike, :index, :all_axes],
                concatenate: [:arrays, :small],
                stack: [:arrays, :small],
                pad: [:array, :all_axes, :starts, :ones, :scalar],
                as_strided: [:array, :shape, :starts, :small],
                tril: [:matrix, :small],
                triu: [:matrix, :small],
                diagonal: [:array, :small, :axis, :axis],
                repeat: [:array, :small, :axis],
                tile: [:array, :ones],
                top_k: [:array, :small],
                take: [:array, :index, :axis],
                take_along_axis: [:array, :index, :axis],
                gather: [:array, :indices, :axes, :stops],
                cholesky: [:matrix, :flag],
                eigh: [:matrix, :flag],
                svd: [:matrix, :flag],
                solve: [:matrix, :matrix],
                solve_triangular: [:matrix, :matrix, :flag],
                conv: [:array, :alike] ++ List.duplicate(:spatial, 5) ++ [:small, :flag, :flag],
                rms_norm: [:array, :maybe, :number],
                layer_norm: [:array, :maybe, :maybe, :number],
                rope: [:array, :small, :flag, :number, :number, :index, :maybe],
                attention: [:heads, :heads, :heads, :number, :mask, :maybe],
                cached_attention: [:heads, :heads, :heads, :number, :index, :index],
                einsum: [:subscripts, :arrays],
                quantize: [:matrix, :group, :bits, :mode],
                dequantize: [:words, :matrix, :maybe, :group, :bits, :mode, :type],
                quantized_matmul: [:matrix, :words, :matrix, :maybe, :flag, :group, :bits, :mode],
                gather_qmm: [
                  :matrix,
                  :words,
                  :matrix,
                  :maybe,
                  :index,
                  :index,
                  :flag,
                  :group,
                  :bits,
                  :mode
                ],
                dequantize_blocks: [:words, :blocks, :type],
                blocks_matmul: [:matrix, :words, :blocks, :flag],
                let: [:small, :array, :array],
                var: [:small],
                elem: [:small, :array],
                tuple: [:arrays],
                cond: [:array, :function, :function],
                while: [:arrays, :function, :function],
                call: [:small, :arrays, :small]
              })

  # What takes long for a large array, however it lies.
  @heavy [
           :matmul,
           :conv,
           :einsum,
           :attention,
           :cached_attention,
           :solve,
           :solve_triangular,
           :svd,
           :eigh,
           :cholesky
         ] ++
           @linear ++ [:quantize, :quantized_matmul, :gather_qmm, :blocks_matmul]

  def signatures, do: @signatures

  @doc "An expression, and whether computing it may be much work."
  def draw(pool) do
    name = pick(Map.keys(@signatures))
    huge? = name not in @heavy and chance(0.03)
    x = if huge?, do: pick(pool.huge), else: pick(pool.small)
    {expression(name, x, pool), huge?}
  end

  defp expression(name, x, pool) do
    arguments = for kind <- @signatures[name], do: argument(kind, x, pool)

    arguments =
      case integer(1, 100) do
        n when n <= 15 ->
          List.replace_at(arguments, integer(0, length(arguments) - 1), Terms.any(pool.small))

        16 ->
          arguments ++ [Terms.any(pool.small)]

        17 ->
          tl(arguments)

        # One in the other, once: what the first gives need not be known.
        n when n <= 25 ->
          List.replace_at(arguments, 0, {pick(@unary), hd(arguments)})

        _ ->
          arguments
      end

    List.to_tuple([name | arguments])
  end

  defp argument(kind, x, pool) do
    sizes = x |> Native.shape() |> Tuple.to_list()
    value(kind, x, sizes, pool)
  end

  defp value(:array, x, _sizes, _pool), do: x
  defp value(:any_array, _x, _sizes, pool), do: pick(pool.small)
  # What goes together with the first.
  defp value(:alike, x, _sizes, pool), do: if(flag(), do: x, else: pick(pool.small))
  defp value(:scalar, _x, _sizes, _pool), do: {:full, [], pick([0, 1, -3]), pick(Pool.types())}
  defp value(:maybe, x, sizes, pool), do: pick([nil, pick(pool.small), last(x, sizes)])

  defp value(:arrays, x, _sizes, pool),
    do: pick([[x], [x, x], some(0, 4, fn -> pick(pool.small) end)])

  defp value(:flag, _x, _sizes, _pool), do: flag()
  defp value(:type, _x, _sizes, _pool), do: pick(Pool.types())

  defp value(:number, _x, _sizes, _pool),
    do: pick([0, 1, 1.5, -2, {:complex, 1, 2.0}, Terms.float(), Terms.integer()])

  defp value(:small, _x, _sizes, _pool),
    do: if(chance(0.9), do: integer(-3, 8), else: Terms.integer())

  defp value(:axis, _x, sizes, _pool),
    do: if(chance(0.9), do: integer(-1, max(0, length(sizes) - 1)), else: Terms.integer())

  defp value(:axes, _x, sizes, _pool),
    do:
      if(chance(0.8),
        do: Enum.take_random(places(sizes), integer(0, length(sizes))),
        else: odd_list()
      )

  defp value(:all_axes, _x, sizes, _pool),
    do: if(chance(0.9), do: places(sizes), else: odd_list())

  defp value(:permutation, _x, sizes, _pool),
    do: if(chance(0.8), do: Enum.shuffle(places(sizes)), else: odd_list())

  defp value(:shape, _x, _sizes, _pool), do: if(chance(0.8), do: Pool.shape(), else: odd_list())

  defp value(:same_size, _x, sizes, _pool),
    do: pick([Enum.reverse(sizes), [Enum.product(sizes)], [1 | sizes], odd_list()])

  defp value(:larger, _x, sizes, _pool),
    do: pick([sizes, [2, 3 | sizes], [pick([2, 2 ** 20, 2 ** 31 - 1]) | sizes], odd_list()])

  defp value(:starts, _x, sizes, _pool),
    do: if(chance(0.8), do: Enum.map(sizes, &integer(-1, min(&1, 9))), else: odd_list())

  defp value(:stops, _x, sizes, _pool),
    do: if(chance(0.8), do: Enum.map(sizes, &pick([&1, max(1, &1 - 1)])), else: odd_list())

  defp value(:ones, _x, sizes, _pool),
    do: if(chance(0.8), do: Enum.map(sizes, fn _ -> pick([1, 1, 2, -1]) end), else: odd_list())

  defp value(:spatial, _x, sizes, _pool),
    do:
      if(chance(0.8), do: for(_ <- Enum.drop(sizes, 2), do: pick([0, 1, 1, 2])), else: odd_list())

  defp value(:index, _x, sizes, pool) do
    pick([
      pick(pool.small),
      {:full, [max(1, length(sizes))], Terms.integer(), pick([:s32, :u8, :s64, :u64])},
      {:full, [], integer(-2, 5), pick([:s32, :s64])}
    ])
  end

  defp value(:indices, x, sizes, pool), do: some(0, 3, fn -> value(:index, x, sizes, pool) end)

  defp value(:matrix, _x, _sizes, pool) do
    shape = pick([[2, 2], [3, 3], [4, 32], [2, 64], [1, 1], [2, 3, 3], [128, 64], [5]])

    if chance(0.7),
      do: Pool.dense(shape, pick([:f32, :f32, :f64, :f16, :bf16, :c64])),
      else: pick(pool.small)
  end

  defp value(:words, _x, _sizes, pool) do
    shape = pick([[2, 8], [64, 8], [3, 2, 8], [2, 34], [4, 144], [1, 18], [8, 210]])
    if chance(0.8), do: Pool.dense(shape, pick([:u32, :u8])), else: pick(pool.small)
  end

  defp value(:heads, _x, _sizes, pool) do
    shape = [pick([1, 1, 2]), pick([1, 2, 4]), pick([1, 3, 5]), pick([4, 8, 64])]
    if chance(0.8), do: Pool.dense(shape, pick([:f32, :f16, :bf16, :f64])), else: pick(pool.small)
  end

  defp value(:mask, _x, _sizes, pool),
    do: pick([nil, :causal, pick(pool.small), Pool.dense([1, 3], :bool)])

  defp value(:group, _x, _sizes, _pool),
    do: pick([32, 64, 128, 16, integer(-1, 5), Terms.integer()])

  defp value(:bits, _x, _sizes, _pool),
    do: pick([2, 3, 4, 5, 6, 8, integer(-1, 9), Terms.integer()])

  defp value(:mode, _x, _sizes, _pool),
    do: pick(["affine", "affine", "mxfp4", "mxfp8", "nvfp4", "", <<255>>])

  defp value(:blocks, _x, _sizes, _pool),
    do: pick(~w(q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs mxfp4 q9))

  defp value(:subscripts, _x, _sizes, _pool),
    do:
      pick([
        "ij,jk->ik",
        "ii->i",
        "...ij->...ji",
        "i,i",
        "ij->",
        "->",
        "ij,",
        "",
        "é",
        "ij->iz",
        "A,B->AB",
        String.duplicate("a", 70)
      ])

  defp value(:function, x, _sizes, pool) do
    pick([
      {[], [], [x]},
      {[0], [], [{:var, 0}]},
      {[0], [{1, {:abs, {:var, 0}}}], [{:var, 1}]},
      {[0], [], [{:less, {:var, 0}, {:full, [], 3, :f32}}]},
      Terms.any(pool.small)
    ])
  end

  defp last(_x, []), do: nil
  defp last(_x, sizes), do: {:full, [List.last(sizes)], 1, :f32}

  defp places(sizes), do: Enum.to_list(0..(length(sizes) - 1)//1)

  defp odd_list,
    do: some(0, 5, fn -> if(chance(0.7), do: integer(-2, 6), else: Terms.integer()) end)
end
