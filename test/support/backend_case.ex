defmodule Emily.BackendCase do
  @moduledoc false
  # What the tests of Emily.Backend share: tensors at random, and the comparison with
  # Nx.BinaryBackend, in a process where that is the default backend.

  use ExUnit.CaseTemplate
  use ExUnitProperties

  alias Nx.Tensor, as: T

  using do
    quote do
      use ExUnitProperties
      import Emily.BackendCase
    end
  end

  setup do
    Nx.default_backend(Nx.BinaryBackend)
    :ok
  end

  @integers [{:u, 8}, {:u, 16}, {:u, 32}, {:u, 64}, {:s, 8}, {:s, 16}, {:s, 32}, {:s, 64}]

  def integers, do: @integers

  @doc "The floats that the default device has: a GPU has no f64, and tests that need it are tagged `:f64`."
  def floats, do: [{:f, 16}, {:bf, 16}, {:f, 32}] ++ if(f64?(), do: [{:f, 64}], else: [])
  def f64?, do: :gpu not in Emily.Native.devices()

  def real_types, do: @integers ++ floats()
  def all_types, do: real_types() ++ [{:c, 64}]

  @doc "How many random cases a property of one operation runs."
  def runs, do: 25

  ## Tensors at random

  @doc "One of the types that the default device has."
  def type(types),
    do: StreamData.member_of(if f64?(), do: types, else: types -- [{:f, 64}])

  def shape(ranks \\ 0..4) do
    size = StreamData.member_of([1, 1, 2, 3, 4])

    StreamData.bind(StreamData.member_of(Enum.to_list(ranks)), fn rank ->
      size |> StreamData.list_of(length: rank) |> StreamData.map(&List.to_tuple/1)
    end)
  end

  @doc "Some axes of a tensor of this rank, in order; at least one."
  def some_axes(rank) do
    StreamData.boolean()
    |> StreamData.list_of(length: rank)
    |> StreamData.map(fn chosen -> for {true, at} <- Enum.with_index(chosen), do: at end)
    |> StreamData.map(fn axes -> if axes == [], do: [rank - 1], else: axes end)
  end

  @doc "A shape that broadcasts with `shape`: some axes are 1, some leading ones are missing."
  def broadcastable(shape) do
    dims = Tuple.to_list(shape)

    gen all(
          drop <- StreamData.integer(0..length(dims)),
          ones <- StreamData.list_of(StreamData.boolean(), length: length(dims))
        ) do
      dims
      |> Enum.zip_with(ones, fn dim, one -> if one, do: 1, else: dim end)
      |> Enum.drop(drop)
      |> List.to_tuple()
    end
  end

  @doc """
  A tensor of random numbers on Nx.BinaryBackend.

  Integers are small, or anywhere in the type's range with `range: :full`, or within `range:
  {low, high}`. Floats lie within `:range` (-4 to 4 without it); `special: true` mixes NaN and the
  infinities in.
  """
  def tensor(type, shape, opts \\ []) do
    number(type, opts)
    |> StreamData.list_of(length: Tuple.product(shape))
    |> StreamData.map(&build(&1, type, shape))
  end

  defp build(numbers, type, shape) do
    Nx.with_default_backend(Nx.BinaryBackend, fn ->
      numbers |> Nx.tensor(type: type) |> Nx.reshape(shape)
    end)
  end

  defp number({kind, bits} = type, opts) when kind in [:s, :u] do
    {least, most} = Emily.Lower.Types.integer_range(kind, bits)

    case opts[:range] do
      {low, high} -> StreamData.integer(max(ceil(low), least)..min(floor(high), most))
      :full -> full_range(type, least, most)
      nil -> StreamData.integer(max(-8, least)..8)
    end
  end

  defp number({:c, _}, opts) do
    part = number({:f, 32}, opts)

    gen all(re <- part, im <- part) do
      if is_number(re) and is_number(im), do: Complex.new(re, im), else: re
    end
  end

  defp number(_float, opts) do
    {low, high} = if is_tuple(opts[:range]), do: opts[:range], else: {-4.0, 4.0}
    float = StreamData.float(min: low * 1.0, max: high * 1.0)
    whole = StreamData.map(StreamData.integer(ceil(low)..floor(high)//1), &(&1 * 1.0))
    finite = if ceil(low) <= floor(high), do: StreamData.one_of([float, whole]), else: float

    if opts[:special] do
      special = StreamData.member_of([:nan, :infinity, :neg_infinity])
      StreamData.frequency([{4, finite}, {1, special}])
    else
      finite
    end
  end

  defp full_range(_type, least, most) do
    ends = StreamData.member_of([least, most, 0, 1, max(least, -1)])
    StreamData.one_of([StreamData.integer(least..most), ends])
  end

  ## Comparison

  @doc """
  A tensor on Emily.Backend with the same numbers, laid out in one of several ways: as it is, as a
  transposed or reversed view, or as a slice of something larger.
  """
  def on_emily(%T{} = tensor) do
    case {rem(:erlang.phash2(tensor), 4), tuple_size(tensor.shape)} do
      {1, rank} when rank > 1 ->
        tensor |> Nx.transpose() |> move() |> Nx.transpose() |> named(tensor)

      {2, rank} when rank > 0 ->
        padded = Nx.pad(tensor, Nx.tensor(0, type: tensor.type), for(_ <- 1..rank, do: {1, 1, 0}))
        starts = List.duplicate(1, rank)
        padded |> move() |> Nx.slice(starts, Tuple.to_list(tensor.shape)) |> named(tensor)

      {3, rank} when rank > 0 ->
        tensor |> Nx.reverse() |> move() |> Nx.reverse() |> named(tensor)

      _ ->
        move(tensor)
    end
  end

  def on_emily(list) when is_list(list), do: Enum.map(list, &on_emily/1)

  defp move(tensor), do: Nx.backend_copy(tensor, Emily.Backend)
  defp named(tensor, %T{names: names}), do: Nx.rename(tensor, names)

  @doc """
  Runs `fun` on the tensors on Nx.BinaryBackend and on Emily.Backend, and compares.

  ## Options

    * `:tolerance` - relative to the number, or absolute where that is below 1. By the type of the
      result without it
    * `:fallback` - whether leaving MLX is allowed; default `false`
    * `:accumulates` - whether many numbers become one, so that what is expected is the result in
      f64, rounded to the type; default `false`
  """
  def assert_same(tensors, fun, opts \\ []),
    do: assert_same_on(on_emily(tensors), tensors, fun, opts)

  @doc "As `assert_same/3`, with the tensors for Emily, not all of which need be Emily's, given."
  def assert_same_on(emilys, tensors, fun, opts) do
    expected = expected(tensors, fun, opts)
    mode = if opts[:fallback], do: :silent, else: :raise
    actual = Emily.Fallback.with_mode(mode, fn -> fun.(emilys) end)
    assert_equal(actual, expected, opts)
  end

  @doc """
  What `fun` gives on Nx.BinaryBackend.

  Where it accumulates, that rounds each step to the type, and bf16 by cutting off: 30 partial sums of
  up to 8 may be off by 30 * 8 * 2^-7, which is 2. Emily accumulates in f32.
  """
  def expected(tensors, fun, opts) do
    result = fun.(tensors)
    if opts[:accumulates], do: tensors |> Enum.map(&widen/1) |> fun.() |> as(result), else: result
  end

  defp widen(%T{type: {kind, _}} = tensor) when kind in [:f, :bf], do: Nx.as_type(tensor, :f64)
  defp widen(tensor), do: tensor

  defp as(wide, like) when is_tuple(wide) do
    Enum.zip_with(Tuple.to_list(wide), Tuple.to_list(like), &as/2) |> List.to_tuple()
  end

  defp as(wide, like), do: Nx.as_type(wide, like.type)

  def assert_equal(actual, expected, opts \\ [])

  def assert_equal(actual, expected, opts) when is_tuple(expected) do
    assert tuple_size(actual) == tuple_size(expected)

    Enum.zip_with(Tuple.to_list(actual), Tuple.to_list(expected), &assert_equal(&1, &2, opts))
  end

  def assert_equal(%T{} = actual, %T{} = expected, opts) do
    assert %Emily.Backend{} = actual.data

    assert {actual.shape, actual.type, actual.names} ==
             {expected.shape, expected.type, expected.names}

    assert actual.vectorized_axes == expected.vectorized_axes

    ref = actual.data.ref
    assert Emily.Native.dtype(ref) == Emily.Lower.dtype(actual.type)
    assert Emily.Native.shape(ref) == Nx.devectorize(actual).shape

    tolerance = opts[:tolerance] || tolerance(expected.type, opts[:accumulates])

    [numbers(actual), numbers(expected)]
    |> Enum.zip()
    |> Enum.with_index()
    |> Enum.each(fn {{a, e}, at} ->
      unless near?(a, e, tolerance) do
        flunk(
          "element #{at} is #{inspect(a)}, expected #{inspect(e)}\n" <>
            "actual: #{inspect(actual)}\nexpected: #{inspect(expected)}"
        )
      end
    end)
  end

  def numbers(tensor), do: tensor |> Nx.devectorize() |> Nx.to_flat_list()

  # 256 sums, each off by half a unit in the last place of a partial sum of up to 64, add up to
  # sqrt(256) * 64 * 2^-25 = 3.1e-5 in f32, and to 2^-29 of that in f64, as a standard deviation.
  defp tolerance({:f, 32}, true), do: 2.0e-4
  defp tolerance({:c, 64}, true), do: 2.0e-4
  defp tolerance({:f, 64}, true), do: 4.0e-13
  defp tolerance(type, _accumulates), do: tolerance(type)

  # BinaryBackend cuts bf16 off where MLX rounds.
  defp tolerance({:bf, 16}), do: 1.6e-2
  defp tolerance({:f, 16}), do: 2.0e-3
  defp tolerance({:f, 32}), do: 4.0e-6
  defp tolerance({:f, 64}), do: 1.0e-13
  defp tolerance({:c, 64}), do: 8.0e-6
  defp tolerance(_integer), do: 0

  defp near?(a, a, _tolerance), do: true

  defp near?(%Complex{} = a, %Complex{} = e, tolerance) do
    size = Enum.max([1.0 | for(x <- [e.re, e.im], is_number(x), do: abs(x))])
    near_part?(a.re, e.re, tolerance * size) and near_part?(a.im, e.im, tolerance * size)
  end

  defp near?(a, e, tolerance) when is_number(a) and is_number(e) do
    a == e or abs(a - e) <= tolerance * max(abs(e), 1.0)
  end

  defp near?(_a, _e, _tolerance), do: false

  defp near_part?(a, e, room) when is_number(a) and is_number(e), do: abs(a - e) <= room
  defp near_part?(a, e, _room), do: a == e
end
