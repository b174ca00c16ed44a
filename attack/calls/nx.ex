defmodule Attack.Calls.Nx do
  @moduledoc false
  # Calls of Nx's functions with legal but odd tensors: all types, ranks from 0 to 12, sizes of one. They are drawn on
  # Nx.BinaryBackend, so that a call can be made on either backend.

  import Attack.Draw
  alias Emily.Declared

  @types [{:u, 8}, {:u, 16}, {:u, 32}, {:u, 64}, {:s, 8}, {:s, 16}, {:s, 32}, {:s, 64}] ++
           [{:f, 16}, {:bf, 16}, {:f, 32}, {:f, 64}, {:c, 64}]
  # MLX lacks these: they are computed elsewhere, and may be given.
  @rare [{:u, 2}, {:u, 4}, {:s, 2}, {:s, 4}, {:f, 8}, {:c, 128}]

  @unary [
           :abs,
           :acos,
           :acosh,
           :asin,
           :asinh,
           :atan,
           :atanh,
           :bitwise_not,
           :cbrt,
           :ceil,
           :conjugate,
           :cos,
           :cosh
         ] ++
           [
             :count_leading_zeros,
             :erf,
             :erf_inv,
             :erfc,
             :exp,
             :expm1,
             :floor,
             :imag,
             :is_infinity,
             :is_nan,
             :log,
             :log10
           ] ++
           [
             :log1p,
             :log2,
             :logical_not,
             :negate,
             :phase,
             :population_count,
             :real,
             :round,
             :rsqrt,
             :sigmoid,
             :sign,
             :sin
           ] ++
           [
             :sinh,
             :sqrt,
             :tan,
             :tanh,
             :flatten,
             :squeeze,
             :reverse,
             :transpose,
             :make_diagonal,
             :take_diagonal,
             :tril,
             :triu
           ] ++
           [
             :all,
             :any,
             :sum,
             :product,
             :mean,
             :median,
             :mode,
             :variance,
             :standard_deviation,
             :reduce_max,
             :reduce_min
           ] ++
           [
             :argmax,
             :argmin,
             :argsort,
             :sort,
             :covariance,
             :diff,
             :fft,
             :ifft,
             :fft2,
             :ifft2,
             :rfft,
             :irfft,
             :logsumexp
           ] ++
           [
             :cumulative_max,
             :cumulative_min,
             :cumulative_product,
             :cumulative_sum,
             :to_flat_list,
             :to_list,
             :to_binary
           ] ++
           [
             :to_number,
             :top_k,
             :serialize,
             :to_batched,
             :reflect,
             :to_heatmap,
             :devectorize,
             :byte_size,
             :axes
           ]
  @binary [
            :add,
            :atan2,
            :bitwise_and,
            :bitwise_or,
            :bitwise_xor,
            :complex,
            :divide,
            :dot,
            :equal,
            :greater,
            :greater_equal
          ] ++
            [
              :left_shift,
              :less,
              :less_equal,
              :log,
              :logical_and,
              :logical_or,
              :logical_xor,
              :max,
              :min,
              :multiply
            ] ++
            [
              :not_equal,
              :outer,
              :pow,
              :quotient,
              :remainder,
              :right_shift,
              :subtract,
              :all_close,
              :weighted_mean
            ] ++
            [:conv, :gather, :take, :take_along_axis, :put_diagonal]
  @reductions [
    :all,
    :any,
    :sum,
    :product,
    :mean,
    :variance,
    :standard_deviation,
    :reduce_max,
    :reduce_min,
    :logsumexp
  ]
  @along [
           :argmax,
           :argmin,
           :argsort,
           :sort,
           :median,
           :mode,
           :diff,
           :cumulative_max,
           :cumulative_min
         ] ++
           [:cumulative_product, :cumulative_sum, :fft, :ifft, :rfft, :irfft]
  @windows [:window_max, :window_mean, :window_min, :window_product, :window_sum]
  @linear [
    :adjoint,
    :cholesky,
    :determinant,
    :eigh,
    :invert,
    :lu,
    :norm,
    :pinv,
    :qr,
    :svd,
    :matrix_rank
  ]

  @doc "Everything that `draw/0` may call, as `{module, name}`."
  def names do
    others =
      [
        :as_type,
        :bitcast,
        :broadcast,
        :clip,
        :concatenate,
        :stack,
        :dot,
        :eye,
        :iota,
        :linspace,
        :tri
      ] ++
        [
          :pad,
          :slice,
          :slice_along_axis,
          :put_slice,
          :select,
          :reshape,
          :new_axis,
          :tile,
          :split,
          :indexed_add
        ] ++
        [
          :indexed_put,
          :window_scatter_max,
          :window_scatter_min,
          :vectorize,
          :fill,
          :from_binary
        ]

    Enum.uniq(
      for(n <- @unary ++ @binary ++ @reductions ++ @along ++ @windows ++ others, do: {Nx, n}) ++
        for(n <- @linear ++ [:solve, :triangular_solve, :matrix_power], do: {Nx.LinAlg, n})
    )
  end

  # No call gives more elements: whoever computes, it takes no time, and Nx.BinaryBackend has the memory for it.
  @most 20_000

  @doc "A module, a function, and arguments with tensors of `Nx.BinaryBackend`."
  def draw do
    {_, fun, tensors} = call = drawn() |> traced()
    if Declared.within?(@most, fun, tensors), do: elem(call, 0), else: draw()
  end

  @doc "Types and shapes that Nx says a call gives, of tensors that are not known."
  def declared(call) do
    {_, fun, tensors} = traced(call)
    Declared.of(fun, tensors)
  end

  # The call as a function of the tensors among its arguments.
  defp traced({module, name, arguments} = call) do
    {tensors, places} =
      for {%Nx.Tensor{} = x, at} <- Enum.with_index(arguments), reduce: {[], []} do
        {tensors, places} -> {[x | tensors], [at | places]}
      end

    fun = fn tensors ->
      tensors
      |> Enum.zip(places)
      |> Enum.reduce(arguments, fn {tensor, at}, list -> List.replace_at(list, at, tensor) end)
      |> then(&apply(module, name, &1))
    end

    {call, fun, tensors}
  end

  defp drawn do
    x = tensor()

    case integer(1, 12) do
      n when n <= 2 ->
        {Nx, pick(@unary), [x]}

      3 ->
        {Nx, pick(@binary),
         [x, pick([x, tensor(), tensor(x.shape), pick([0, 1, -2.5, 2 ** 40, :nan])])]}

      4 ->
        {Nx, pick(@reductions), [x, [axes: axes(x), keep_axes: flag()]]}

      5 ->
        {Nx, pick(@along), [x, along(x)]}

      6 ->
        {Nx, pick(@windows),
         [
           x,
           window(x),
           [strides: ones(x), padding: pick([:valid, :same]), window_dilations: ones(x)]
         ]}

      7 ->
        {Nx.LinAlg, pick(@linear), [matrix()]}

      8 ->
        {Nx.LinAlg, :solve, [matrix(), matrix()]}

      _ ->
        other(integer(1, 30), x)
    end
  end

  defp other(1, x), do: {Nx, :as_type, [x, type()]}
  defp other(2, x), do: {Nx, :bitcast, [x, type()]}
  defp other(3, x), do: {Nx, :broadcast, [x, List.to_tuple([2, 1, 3] ++ Tuple.to_list(x.shape))]}
  defp other(4, x), do: {Nx, :clip, [x, pick([-1, 0, 0.5]), pick([1, 2.5, 300])]}

  defp other(5, x),
    do: {Nx, :concatenate, [some(1, 3, fn -> pick([x, tensor(x.shape)]) end), [axis: axis(x)]]}

  defp other(6, x),
    do: {Nx, :stack, [some(1, 3, fn -> pick([x, tensor(x.shape)]) end), [axis: axis(x)]]}

  defp other(7, x), do: {Nx, :dot, [x, axes(x) || [], tensor(x.shape), axes(x) || []]}
  defp other(8, _x), do: {Nx, :eye, [pick([1, 3, {2, 3}, {2, 1, 4, 4}]), [type: type()]]}
  defp other(9, x), do: {Nx, :iota, [x.shape, [axis: pick([nil, axis(x)]), type: type()]]}

  defp other(10, _x),
    do: {Nx, :linspace, [integer(-3, 3), integer(-3, 9), [n: integer(1, 9), type: type()]]}

  defp other(11, x),
    do:
      {Nx, :pad,
       [
         x,
         pick([0, 1, 0.5]),
         x.shape |> Tuple.to_list() |> Enum.map(&edges/1)
       ]}

  defp other(12, x), do: {Nx, :slice, [x, starts(x), lengths(x), [strides: ones(x)]]}

  defp other(13, x),
    do: {Nx, :slice_along_axis, [x, integer(0, 2), integer(1, 3), [axis: axis(x)]]}

  defp other(14, x), do: {Nx, :put_slice, [x, starts(x), tensor(List.to_tuple(lengths(x)))]}
  defp other(15, x), do: {Nx, :select, [tensor(x.shape), x, pick([tensor(x.shape), 1, 0.5])]}

  defp other(16, x),
    do: {Nx, :reshape, [x, pick([{Nx.size(x)}, {:auto, 1}, {1, 1, Nx.size(x), 1}, {2, :auto}])]}

  defp other(17, x), do: {Nx, :new_axis, [x, integer(-1, 3)]}
  defp other(18, x), do: {Nx, :tile, [x, for(_ <- Nx.axes(x), do: integer(1, 2))]}
  defp other(19, x), do: {Nx, :split, [x, pick([1, 2, 0.5]), [axis: axis(x)]]}

  defp other(n, %{shape: {}} = x) when n in [20, 21], do: other(1, x)

  defp other(n, x) when n in [20, 21] do
    rows = integer(1, 4)
    taken = Enum.take_random(Nx.axes(x), integer(1, max(1, Nx.rank(x))))

    indices =
      for(_ <- 1..rows, do: for(axis <- taken, do: integer(-1, elem(x.shape, axis))))
      |> Nx.tensor(type: pick([:s32, :s64, :u8, :u64]), backend: Nx.BinaryBackend)

    updates =
      tensor(List.to_tuple([rows | for(a <- Nx.axes(x), a not in taken, do: elem(x.shape, a))]))

    {Nx, pick([:indexed_add, :indexed_put]), [x, indices, updates, [axes: taken]]}
  end

  defp other(22, x) do
    window = window(x)

    {Nx, pick([:window_scatter_max, :window_scatter_min]),
     [
       x,
       tensor(x.shape),
       pick([0, 1, 0.5]),
       window,
       [strides: Tuple.to_list(window), padding: pick([:valid, :same])]
     ]}
  end

  defp other(23, x),
    do:
      {Nx, :take,
       [
         x,
         tensor(
           Attack.Calls.Pool.shape() |> List.to_tuple(),
           pick([{:s, 32}, {:u, 8}, {:s, 64}])
         ),
         [axis: axis(x)]
       ]}

  defp other(24, x),
    do: {Nx, :take_along_axis, [x, tensor(x.shape, pick([{:s, 32}, {:u, 64}])), [axis: axis(x)]]}

  defp other(25, _x) do
    spatial = some(0, 3, fn -> integer(1, 4) end)
    groups = pick([1, 1, 2])
    x = tensor(List.to_tuple([pick([1, 2]), 2 * groups] ++ spatial))
    kernel = tensor(List.to_tuple([2 * groups, 2] ++ Enum.map(spatial, &integer(1, &1))))
    each = fn -> Enum.map(spatial, fn _ -> integer(1, 2) end) end

    {Nx, :conv,
     [
       x,
       kernel,
       [
         strides: each.(),
         padding: pick([:valid, :same]),
         input_dilation: each.(),
         kernel_dilation: each.(),
         feature_group_size: groups
       ]
     ]}
  end

  defp other(26, _x),
    do:
      {Nx.LinAlg, :triangular_solve,
       [
         matrix(),
         matrix(),
         [lower: flag(), left_side: flag(), transform_a: pick([:none, :transpose])]
       ]}

  defp other(27, _x), do: {Nx.LinAlg, :matrix_power, [matrix(), integer(-2, 5)]}
  defp other(28, x), do: {Nx, :from_binary, [Nx.to_binary(x), type()]}
  defp other(29, x), do: {Nx, :dot, [x, tensor()]}
  defp other(30, x), do: {Nx, :fill, [x, pick([0, 1.5, -1])]}

  # Nx.BinaryBackend does not end where no element is left between two that are added.
  defp edges(size) do
    low = integer(max(-1, 1 - size), 2)
    {low, integer(max(-1, 1 - size - min(low, 0)), 2), integer(0, 2)}
  end

  def type, do: if(chance(0.93), do: pick(@types), else: pick(@rare))

  def tensor(shape \\ List.to_tuple(Attack.Calls.Pool.shape()), type \\ type()) do
    numbers = for _ <- 1..Tuple.product(shape), do: number(type)
    numbers |> Nx.tensor(type: type, backend: Nx.BinaryBackend) |> Nx.reshape(shape)
  end

  defp number({:u, bits}), do: pick([0, 1, integer(0, 2 ** min(bits, 3) - 1), 2 ** bits - 1])

  defp number({:s, bits}),
    do:
      pick([
        0,
        1,
        -1,
        integer(-(2 ** (min(bits, 4) - 1)), 2 ** (min(bits, 4) - 1) - 1),
        -(2 ** (bits - 1)),
        2 ** (bits - 1) - 1
      ])

  defp number({:c, _}), do: Complex.new(number({:f, 32}), number({:f, 32}))

  defp number(_float),
    do:
      pick([
        0.0,
        -0.0,
        1.0,
        :rand.normal(),
        3 * :rand.normal(),
        200.0,
        :nan,
        :infinity,
        :neg_infinity
      ])

  defp matrix do
    n = integer(1, 4)

    x =
      tensor(
        pick([{n, n}, {n, n}, {2, n, n}, {n, n + 1}, {1, 1, n, n}]),
        pick([{:f, 32}, {:f, 32}, {:f, 64}, {:s, 32}, {:c, 64}, {:bf, 16}])
      )

    # What is singular is a question of rounding where numbers are not finite.
    if flag(),
      do:
        Nx.select(
          Nx.logical_or(Nx.is_nan(x), Nx.is_infinity(x)),
          Nx.tensor(1, type: x.type, backend: Nx.BinaryBackend),
          x
        ),
      else:
        Nx.iota(x.shape, backend: Nx.BinaryBackend)
        |> Nx.multiply(pick([0.5, 1, 3]))
        |> Nx.as_type(x.type)
  end

  defp axes(x) do
    case Enum.take_random(Nx.axes(x), integer(0, Nx.rank(x))) do
      [] -> nil
      axes -> axes
    end
  end

  defp axis(x), do: integer(-1, max(0, Nx.rank(x) - 1))
  defp along(x), do: if(chance(0.9), do: [axis: axis(x)], else: [])
  defp window(x), do: x.shape |> Tuple.to_list() |> Enum.map(&integer(1, &1)) |> List.to_tuple()
  defp ones(x), do: Enum.map(Nx.axes(x), fn _ -> pick([1, 1, 2]) end)
  defp starts(x), do: x.shape |> Tuple.to_list() |> Enum.map(&integer(-1, &1))
  defp lengths(x), do: x.shape |> Tuple.to_list() |> Enum.map(&integer(1, &1))
end
