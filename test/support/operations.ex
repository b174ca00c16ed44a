defmodule Emily.Operations do
  @moduledoc false
  # One row for each operation of Nx.Backend: how to draw tensors and options for it.
  #
  # A case is `{tensors, fun, opts}`: `fun` takes the tensors, on any backend or inside defn, and
  # answers a tensor or a tuple; `opts` are those of `Emily.BackendCase.assert_same/3`, and
  # `vectorised: false` where the first tensor must not be vectorised.

  use ExUnitProperties
  import Emily.BackendCase
  import Emily.Operations.Arguments

  Code.ensure_loaded!(Nx)

  @domains [
    exp: {-6, 6},
    expm1: {-3, 3},
    log: {0.01, 20},
    log1p: {-0.9, 20},
    sigmoid: {-8, 8},
    cos: {-20, 20},
    sin: {-20, 20},
    tan: {-1.4, 1.4},
    cosh: {-4, 4},
    sinh: {-4, 4},
    tanh: {-4, 4},
    acos: {-1, 1},
    asin: {-1, 1},
    atan: {-9, 9},
    acosh: {1, 9},
    asinh: {-9, 9},
    atanh: {-0.9, 0.9},
    sqrt: {0, 30},
    rsqrt: {0.1, 30},
    cbrt: {-30, 30},
    erf: {-3, 3},
    erfc: {-3, 5},
    erf_inv: {-0.9, 0.9}
  ]

  @doc "Between what numbers each function of one real number is drawn."
  def domains, do: @domains

  @one [:abs, :negate, :conjugate, :real, :imag, :is_nan, :is_infinity, :logical_not]
  @one_real [:sign, :floor, :ceil, :round]
  @bits [:bitwise_not, :count_leading_zeros, :population_count]
  @arithmetic [:add, :subtract, :multiply, :equal, :not_equal]
  @logical [:logical_and, :logical_or, :logical_xor]
  @order [:greater, :less, :greater_equal, :less_equal, :atan2]
  @extremes [:min, :max]
  @bitwise [:bitwise_and, :bitwise_or, :bitwise_xor]
  @shifts [:left_shift, :right_shift]
  @windows [:window_sum, :window_product, :window_max, :window_min]
  @cumulative [:cumulative_sum, :cumulative_product, :cumulative_max, :cumulative_min]

  @doc "The operations of the table: Nx's callbacks and, by their names in Nx 0.11, its blocks."
  def names do
    # function_exported?/2 says no of what is not loaded.
    Code.ensure_loaded!(Nx)

    Keyword.keys(@domains) ++
      @one ++
      @one_real ++
      @bits ++
      @arithmetic ++
      @logical ++
      @order ++
      @extremes ++
      @bitwise ++
      @shifts ++
      @windows ++
      @cumulative ++
      [:divide, :quotient, :remainder, :pow, :as_type, :bitcast, :reshape, :squeeze] ++
      [:broadcast, :transpose, :reverse, :pad, :concatenate, :stack, :slice, :put_slice] ++
      [:gather, :take, :take_along_axis, :indexed_add, :indexed_put, :select, :clip, :dot] ++
      [:conv, :sum, :product, :reduce_max, :reduce_min, :all, :any, :argmax, :argmin] ++
      [:reduce, :window_reduce, :window_scatter_max, :window_scatter_min, :sort, :argsort] ++
      [:top_k, :all_close, :phase, :fft, :ifft, :fft2, :ifft2, :triangular_solve, :solve] ++
      [:determinant, :cholesky, :qr, :lu, :svd, :eigh] ++
      if(function_exported?(Nx, :rfft, 2), do: [:rfft, :irfft], else: [])
  end

  @doc "Cases of one operation."
  def cases(name)

  for {name, range} <- @domains do
    def cases(unquote(name)) do
      range = unquote(Macro.escape(range))
      types = if elem(range, 0) < -1, do: real_types(), else: floats()

      gen all(x <- any(types, 0..5, range: range)) do
        # BinaryBackend's erf_inv has 7 digits in f64.
        opts =
          if unquote(name) == :erf_inv and x.type == {:f, 64}, do: [tolerance: 1.0e-6], else: []

        {[x], fn [x] -> Nx.unquote(name)(x) end, opts}
      end
    end
  end

  for name <- @one do
    def cases(unquote(name)) do
      types =
        case unquote(name) do
          # It would be c128.
          :conjugate -> all_types() -- [{:f, 64}]
          # That of a real tensor is a new one, on the default backend.
          :imag -> [{:c, 64}]
          _ -> all_types()
        end

      real? = unquote(name in [:is_nan, :is_infinity])
      one(any(types, 0..5, special: real?), fn x -> Nx.unquote(name)(x) end)
    end
  end

  for name <- @one_real do
    def cases(unquote(name)) do
      one(any(real_types(), 0..5, range: {-9, 9}), fn x -> Nx.unquote(name)(x) end)
    end
  end

  for name <- @bits do
    def cases(unquote(name)) do
      one(any(integers(), 0..5, range: :full), fn x -> Nx.unquote(name)(x) end)
    end
  end

  for {names, types, opts} <- [
        {@arithmetic, :all, []},
        {@logical, :all, [range: {-1, 1}]},
        {@order, :real, [range: {-3, 3}]},
        {@extremes, :real, []},
        {@bitwise, :integer, [range: :full]}
      ],
      name <- names do
    def cases(unquote(name)) do
      pair(types(unquote(types)), unquote(opts), unquote(opts), fn [x, y] ->
        Nx.unquote(name)(x, y)
      end)
    end
  end

  for name <- @shifts do
    def cases(unquote(name)) do
      pair(integers(), [range: :full], [range: {0, 70}], fn [x, y] -> Nx.unquote(name)(x, y) end)
    end
  end

  def cases(:divide) do
    pair(real_types(), [range: {-50, 50}], [range: {1, 9}], fn [x, y] -> Nx.divide(x, y) end)
  end

  def cases(:quotient) do
    pair(integers(), [range: :full], [range: {1, 9}], fn [x, y] -> Nx.quotient(x, y) end)
  end

  def cases(:remainder) do
    pair(integers(), [range: :full], [range: {1, 9}], fn [x, y] -> Nx.remainder(x, y) end)
  end

  def cases(:pow) do
    pair(integers(), [range: {-9, 9}], [range: {0, 12}], fn [x, y] -> Nx.pow(x, y) end)
  end

  def cases(:as_type) do
    gen all(x <- any(all_types(), 0..5, range: {-100, 100}), to <- type(all_types())) do
      {[x], fn [x] -> Nx.as_type(x, to) end, []}
    end
  end

  def cases(:bitcast) do
    gen all(
          x <- any(real_types(), 0..5),
          to <- type(for {_, b} = t <- real_types(), b == elem(x.type, 1), do: t)
        ) do
      {[x], fn [x] -> Nx.bitcast(x, to) end, []}
    end
  end

  def cases(:reshape) do
    gen all(x <- any(all_types(), 0..5), shuffled <- shuffled(Tuple.to_list(x.shape))) do
      {[x], fn [x] -> Nx.reshape(x, List.to_tuple(shuffled)) end, []}
    end
  end

  def cases(:squeeze), do: one(any(all_types(), 0..5), &Nx.squeeze/1)

  def cases(:broadcast) do
    gen all(
          type <- type(all_types()),
          shape <- shape(1..5),
          axes <- some_axes(tuple_size(shape)),
          x <- tensor(type, axes |> Enum.map(&elem(shape, &1)) |> List.to_tuple())
        ) do
      {[x], fn [x] -> Nx.broadcast(x, shape, axes: axes) end, []}
    end
  end

  def cases(:transpose) do
    gen all(x <- any(all_types(), 1..5), axes <- shuffled(Nx.axes(x))) do
      {[x], fn [x] -> Nx.transpose(x, axes: axes) end, []}
    end
  end

  def cases(:reverse) do
    gen all(x <- any(all_types(), 1..5), axes <- some_axes(Nx.rank(x))) do
      {[x], fn [x] -> Nx.reverse(x, axes: axes) end, []}
    end
  end

  def cases(:pad) do
    edge = StreamData.integer(-1..2)

    gen all(
          x <- any(all_types(), 0..4),
          value <- tensor(x.type, {}),
          config <-
            {edge, edge, StreamData.integer(0..2)}
            |> StreamData.tuple()
            |> StreamData.list_of(length: Nx.rank(x)),
          # Nx lets no axis vanish.
          config =
            Enum.zip_with(Tuple.to_list(x.shape), config, fn dim, {low, high, interior} ->
              if dim > 2, do: {low, high, interior}, else: {max(low, 0), max(high, 0), interior}
            end)
        ) do
      {[x, value], fn [x, value] -> Nx.pad(x, value, config) end, []}
    end
  end

  def cases(:concatenate) do
    gen all({tensors, axis} <- together()) do
      {tensors, fn tensors -> Nx.concatenate(tensors, axis: axis) end, []}
    end
  end

  def cases(:stack) do
    gen all({tensors, axis} <- together()) do
      {tensors, fn tensors -> Nx.stack(tensors, axis: axis) end, []}
    end
  end

  def cases(:slice) do
    gen all(
          x <- any(all_types(), 1..5),
          {starts, lengths} <- part(x.shape),
          strides <- StreamData.list_of(StreamData.integer(1..2), length: Nx.rank(x)),
          dynamic <- StreamData.boolean()
        ) do
      fun = fn [x | starts] -> Nx.slice(x, starts, lengths, strides: strides) end

      if dynamic do
        {[x | Enum.map(starts, &Nx.tensor/1)], fun, []}
      else
        static = Enum.map(starts, &max(&1, 0))
        {[x], fn [x] -> fun.([x | static]) end, []}
      end
    end
  end

  def cases(:put_slice) do
    gen all(
          x <- any(all_types(), 1..5),
          {starts, lengths} <- part(x.shape),
          update <- tensor(x.type, List.to_tuple(lengths)),
          dynamic <- StreamData.boolean()
        ) do
      if dynamic do
        starts = Enum.map(starts, &Nx.tensor/1)
        {[x, update | starts], fn [x, u | starts] -> Nx.put_slice(x, starts, u) end, []}
      else
        starts = Enum.map(starts, &max(&1, 0))
        {[x, update], fn [x, u] -> Nx.put_slice(x, starts, u) end, []}
      end
    end
  end

  def cases(:gather) do
    gen all(
          x <- any(all_types(), 1..5),
          axes <- some_axes(Nx.rank(x)),
          outer <- shape(0..2),
          indices <- indices(x.shape, axes, outer)
        ) do
      {[x, indices], fn [x, indices] -> Nx.gather(x, indices, axes: axes) end, []}
    end
  end

  for name <- [:indexed_add, :indexed_put] do
    def cases(unquote(name)) do
      gen all(
            x <- any(all_types(), 1..5),
            axes <- some_axes(Nx.rank(x)),
            count <- StreamData.integer(1..3),
            indices <- indices(x.shape, axes, {count}),
            rest = for(at <- Nx.axes(x), at not in axes, do: elem(x.shape, at)),
            updates <- tensor(x.type, List.to_tuple([count | rest]))
          ) do
        fun = fn [x, i, u] -> Nx.unquote(name)(x, i, u, axes: axes) end

        # Nx flattens the updates of vectorised tensors, and BinaryBackend then takes slices for numbers.
        {[x, indices, updates], fun, [accumulates: true, vectorised: rest == []]}
      end
    end
  end

  def cases(:take) do
    gen all(
          {x, axis} <- along(all_types(), []),
          type <- type(integers()),
          outer <- shape(0..2),
          indices <- tensor(type, outer, range: {0, elem(x.shape, axis) - 1})
        ) do
      {[x, indices], fn [x, indices] -> Nx.take(x, indices, axis: axis) end, []}
    end
  end

  def cases(:take_along_axis) do
    gen all(
          {x, axis} <- along(all_types(), []),
          type <- type(integers()),
          count <- StreamData.integer(1..3),
          indices <-
            tensor(type, put_elem(x.shape, axis, count), range: {0, elem(x.shape, axis) - 1})
        ) do
      {[x, indices], fn [x, i] -> Nx.take_along_axis(x, i, axis: axis) end, []}
    end
  end

  def cases(:select) do
    gen all(
          x <- any(all_types(), 0..5),
          y <- tensor(x.type, x.shape),
          predicate <- tensor({:u, 8}, x.shape, range: {0, 1})
        ) do
      {[predicate, x, y], fn [p, x, y] -> Nx.select(p, x, y) end, []}
    end
  end

  def cases(:clip) do
    gen all(
          x <- any(real_types(), 0..5),
          low <- tensor(x.type, {}, range: {0, 1}),
          high <- tensor(x.type, {}, range: {1, 3})
        ) do
      {[x, low, high], fn [x, low, high] -> Nx.clip(x, low, high) end, []}
    end
  end

  def cases(:dot) do
    size = StreamData.integer(1..3)

    gen all(
          type <- type(all_types()),
          batch <- StreamData.list_of(size, max_length: 1),
          inner <- size,
          rows <- StreamData.list_of(size, max_length: 2),
          columns <- StreamData.list_of(size, max_length: 2),
          x <- tensor(type, List.to_tuple(batch ++ rows ++ [inner])),
          y <- tensor(type, List.to_tuple(batch ++ [inner] ++ columns))
        ) do
      b = Enum.to_list(0..(length(batch) - 1)//1)
      fun = fn [x, y] -> Nx.dot(x, [-1], b, y, [length(b)], b) end
      {[x, y], fun, [accumulates: true]}
    end
  end

  def cases(:conv) do
    small = StreamData.integer(1..2)

    gen all(
          type <- type(all_types()),
          spatial <- StreamData.integer(1..3),
          groups <- small,
          [batch, channels, outputs] <- StreamData.list_of(small, length: 3),
          dims <- StreamData.list_of(StreamData.integer(3..4), length: spatial),
          kernel <- StreamData.list_of(small, length: spatial),
          strides <- StreamData.list_of(small, length: spatial),
          input_dilation <- StreamData.list_of(small, length: spatial),
          kernel_dilation <- StreamData.list_of(small, length: spatial),
          pads <- StreamData.list_of(StreamData.tuple({small, small}), length: spatial),
          padding <- StreamData.member_of([:valid, :same, pads]),
          x <- tensor(type, List.to_tuple([batch, channels * groups | dims])),
          k <- tensor(type, List.to_tuple([outputs * groups, channels | kernel]))
        ) do
      opts = [
        strides: strides,
        padding: padding,
        input_dilation: input_dilation,
        kernel_dilation: kernel_dilation,
        feature_group_size: groups
      ]

      {[x, k], fn [x, k] -> Nx.conv(x, k, opts) end, [accumulates: true]}
    end
  end

  for name <- [:sum, :product, :reduce_max, :reduce_min, :all, :any] do
    def cases(unquote(name)) do
      # BinaryBackend takes a complex zero for true in all and any, though not in logical_and.
      types = if unquote(name in [:sum, :product]), do: all_types(), else: real_types()

      gen all(x <- any(types, 0..5, range: {-2, 2}), opts <- reduced(x)) do
        {[x], fn [x] -> Nx.unquote(name)(x, opts) end, [accumulates: true]}
      end
    end
  end

  for name <- [:argmax, :argmin] do
    def cases(unquote(name)) do
      gen all(
            {x, axis} <- along(real_types(), range: {-2, 2}, special: true),
            axis <- StreamData.member_of([nil, axis]),
            tie_break <- StreamData.member_of([:low, :high]),
            keep <- StreamData.boolean()
          ) do
        opts = [axis: axis, tie_break: tie_break, keep_axis: keep]
        # Nx reduces the wrong axis of a vectorised tensor then.
        vectorised = if axis == nil and keep, do: [vectorised: false], else: []
        {[x], fn [x] -> Nx.unquote(name)(x, opts) end, vectorised}
      end
    end
  end

  for name <- @cumulative do
    def cases(unquote(name)) do
      gen all({x, axis} <- along(real_types(), range: {-2, 2}), reverse <- StreamData.boolean()) do
        fun = fn [x] -> Nx.unquote(name)(x, axis: axis, reverse: reverse) end
        {[x], fun, [accumulates: true]}
      end
    end
  end

  def cases(:reduce) do
    gen all(
          x <- any(real_types(), 1..4, range: {-3, 3}),
          acc <- tensor(x.type, {}, range: {-3, 3}),
          opts <- reduced(x),
          name <- StreamData.member_of([:add, :max, :min])
        ) do
      fun = fn x, y -> apply(Nx, name, [x, y]) end
      {[x, acc], fn [x, acc] -> Nx.reduce(x, acc, opts, fun) end, [accumulates: true]}
    end
  end

  def cases(:window_reduce) do
    gen all(
          # Nx's window_reduce hands the function numbers: only these types come back as they went.
          {x, window, opts} <- windowed([{:s, 32}, {:f, 32}]),
          acc <- tensor(x.type, {}, range: {-3, 3}),
          name <- StreamData.member_of([:add, :max, :min])
        ) do
      fun = fn x, y -> apply(Nx, name, [x, y]) end
      opts = Keyword.delete(opts, :window_dilations)

      {[x, acc], fn [x, acc] -> Nx.window_reduce(x, acc, window, opts, fun) end, []}
    end
  end

  for name <- @windows do
    def cases(unquote(name)) do
      gen all({x, window, opts} <- windowed(real_types())) do
        {[x], fn [x] -> Nx.unquote(name)(x, window, opts) end, [accumulates: true]}
      end
    end
  end

  for name <- [:window_scatter_max, :window_scatter_min] do
    def cases(unquote(name)) do
      gen all(
            {x, window, opts} <- windowed([{:f, 32}, {:s, 32}, {:u, 8}]),
            # BinaryBackend of Nx 0.11 forgets the padding.
            opts = [strides: opts[:strides], padding: :valid],
            source <- tensor(x.type, Nx.shape(Nx.window_sum(x, window, opts)))
          ) do
        {[x, source], fn [x, source] -> Nx.unquote(name)(x, source, 0, window, opts) end,
         [tolerance: 1.0e-5]}
      end
    end
  end

  for name <- [:sort, :argsort] do
    def cases(unquote(name)) do
      gen all(
            {x, axis} <- along(real_types(), special: true),
            direction <- StreamData.member_of([:asc, :desc])
          ) do
        opts = [axis: axis, direction: direction, stable: true]
        {[x], fn [x] -> Nx.unquote(name)(x, opts) end, []}
      end
    end
  end

  def cases(:top_k) do
    gen all(
          x <- any(real_types(), 1..4),
          k <- StreamData.integer(1..elem(x.shape, Nx.rank(x) - 1))
        ) do
      {[x], fn [x] -> Nx.top_k(x, k: k) end, []}
    end
  end

  # Nx compares integers in f64.
  def cases(:all_close) do
    types = if f64?(), do: real_types(), else: floats()

    gen all(x <- any(types, 0..4), y <- tensor(x.type, x.shape, range: {-1, 1})) do
      {[x, y], fn [x, y] -> {Nx.all_close(x, y), Nx.all_close(x, x)} end, []}
    end
  end

  def cases(:phase), do: one(any([{:c, 64}], 0..5), &Nx.phase/1)

  # BinaryBackend transposes wrongly unless the last axis is transformed, and fails on one number.
  for name <- [:fft, :ifft] ++ if(function_exported?(Nx, :rfft, 2), do: [:rfft], else: []) do
    def cases(unquote(name)) do
      types = if unquote(name) == :rfft, do: floats(), else: all_types()
      signal(types -- [{:f, 64}], [nil, 2, 5, 8], fn x, opts -> Nx.unquote(name)(x, opts) end)
    end
  end

  def cases(:irfft) do
    signal([{:c, 64}], [4, 5], fn x, opts -> apply(Nx, :irfft, [x, opts]) end)
  end

  for name <- [:fft2, :ifft2] do
    def cases(unquote(name)) do
      gen all(
            type <- type([{:f, 32}, {:c, 64}, {:s, 32}, {:bf, 16}]),
            x <- tensor(type, {3, 4}),
            axes <- StreamData.member_of([[-2, -1], [0, 1]]),
            lengths <- StreamData.member_of([nil, [2, 4], [3, 5]])
          ) do
        opts = [axes: axes] ++ if(lengths, do: [lengths: lengths], else: [])
        {[x], fn [x] -> Nx.unquote(name)(x, opts) end, tolerance: 2.0e-5}
      end
    end
  end

  def cases(:triangular_solve) do
    gen all(
          a <- matrix(),
          lower <- StreamData.boolean(),
          left <- StreamData.boolean(),
          transform <- StreamData.member_of([:none, :transpose]),
          {batch, [n, _]} = Enum.split(Tuple.to_list(a.shape), -2),
          b <- tensor(a.type, List.to_tuple(batch ++ if(left, do: [n, 2], else: [2, n])))
        ) do
      opts = [lower: lower, left_side: left, transform_a: transform]
      a = if lower, do: Nx.tril(a), else: Nx.triu(a)
      {[a, b], fn [a, b] -> Nx.LinAlg.triangular_solve(a, b, opts) end, precision(a)}
    end
  end

  def cases(:solve) do
    gen all(
          a <- matrix(),
          {batch, [n, _]} = Enum.split(Tuple.to_list(a.shape), -2),
          b <- tensor(a.type, List.to_tuple(batch ++ [n, 2]))
        ) do
      {[a, b], fn [a, b] -> Nx.LinAlg.solve(a, b) end, precision(a)}
    end
  end

  def cases(:determinant) do
    gen all(a <- matrix()) do
      {[a], fn [a] -> Nx.LinAlg.determinant(a) end, precision(a)}
    end
  end

  def cases(:cholesky) do
    gen all(a <- matrix()) do
      {[Nx.add(a, transposed(a))], fn [a] -> Nx.LinAlg.cholesky(a) end, [tolerance: 1.0e-4]}
    end
  end

  # Factors have free signs and orders: what they multiply to is compared.
  def cases(:qr) do
    gen all(
          a <- matrix([{4, 3}, {3, 4}, {2, 3, 3}]),
          mode <- StreamData.member_of([:reduced, :complete])
        ) do
      fun = fn [a] ->
        {q, r} = Nx.LinAlg.qr(a, mode: mode)
        {matmul(q, r), matmul(transposed(q), q)}
      end

      # Nx's own steps round to f32: they are off by some 1e-3 where entries of 30 cancel.
      {[a], fun, [tolerance: 5.0e-3]}
    end
  end

  def cases(:lu) do
    gen all(a <- matrix()) do
      fun = fn [a] ->
        {p, l, u} = Nx.LinAlg.lu(a)
        matmul(p, matmul(l, u))
      end

      {[a], fun, [tolerance: 1.0e-4]}
    end
  end

  def cases(:svd) do
    gen all(a <- matrix([{4, 3}, {3, 4}, {2, 3, 3}]), full <- StreamData.boolean()) do
      fun = fn [a] ->
        {u, s, vt} = Nx.LinAlg.svd(a, full_matrices?: full)
        k = Nx.axis_size(s, -1)
        u = Nx.slice_along_axis(u, 0, k, axis: -1)
        vt = Nx.slice_along_axis(vt, 0, k, axis: -2)
        matmul(Nx.multiply(u, Nx.new_axis(s, -2)), vt)
      end

      # Nx's own iteration is off by some hundredths.
      {[a], fun, [tolerance: 5.0e-2]}
    end
  end

  def cases(:eigh) do
    gen all(a <- matrix()) do
      # Nx 0.11 has no eigenvalues of a single integer.
      a = if match?({:s, _}, a.type), do: Nx.as_type(a, {:f, 32}), else: a

      fun = fn [a] ->
        {values, vectors} = Nx.LinAlg.eigh(a)
        matmul(Nx.multiply(vectors, Nx.new_axis(values, -2)), transposed(vectors))
      end

      {[Nx.add(a, transposed(a))], fun, [tolerance: 2.0e-2]}
    end
  end

  ## Precision

  defp precision(%{type: {:f, 64}}), do: [tolerance: 1.0e-11]
  defp precision(_), do: [tolerance: 1.0e-4]
end
