defmodule Emily.RandomPrograms do
  @moduledoc false
  # Programs of Nx at random. A program is drawn from its number alone: `draw/1` answers the same one every time.
  #
  # Inputs are tensors of any type that MLX has, with NaN, infinities and both zeros among their numbers; each step
  # is an operation on registers, which are inputs and results of steps before. What Nx or Nx.BinaryBackend refuses
  # is no step.

  alias Emily.{Declared, Lower}
  alias Emily.RandomPrograms.Blocks
  alias Nx.Tensor, as: T

  @enforce_keys [:seed, :inputs, :steps]
  defstruct [:seed, :inputs, :steps]

  @integers [{:u, 8}, {:u, 16}, {:u, 32}, {:u, 64}, {:s, 8}, {:s, 16}, {:s, 32}, {:s, 64}]
  @sizes [1, 2, 3, 4]
  # A register has no more elements, and nothing that is larger is computed while a program is drawn.
  @most 256

  @unary [:negate, :abs, :sign, :floor, :ceil, :round, :exp, :sin, :cos, :tanh, :sqrt, :sigmoid] ++
           [:log1p, :erf, :atan, :cbrt, :is_nan, :is_infinity, :logical_not, :bitwise_not] ++
           [:real, :imag, :conjugate, :reverse, :transpose, :squeeze, :count_leading_zeros]
  @binary [:add, :subtract, :multiply, :divide, :max, :min, :pow, :atan2, :remainder, :quotient] ++
            [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] ++
            [:logical_and, :logical_or, :logical_xor, :bitwise_and, :bitwise_xor, :left_shift]
  @reductions [:sum, :product, :reduce_max, :reduce_min, :all, :any, :mean, :variance] ++
                [:logsumexp]
  @along [:cumulative_sum, :cumulative_product, :cumulative_max, :cumulative_min] ++
           [:argmax, :argmin, :sort, :argsort]
  @windows [:window_sum, :window_product, :window_max, :window_min, :window_mean]

  # The types that are drawn more often stand more often.
  defp floats, do: Emily.BackendCase.floats() ++ [{:bf, 16}, {:f, 32}]

  @doc "The program of this number."
  def draw(seed) do
    :rand.seed(:exsss, {seed, 11, 1})
    inputs = for _ <- 1..integer(1, 3), do: input()

    {steps, _} =
      Enum.flat_map_reduce(1..integer(2, 6), inputs, fn _, values ->
        step(values, 8, &operation/1)
      end)

    %__MODULE__{seed: seed, inputs: inputs, steps: steps}
  end

  @doc """
  The program of these numbers: one for its inputs, and one for each step, of which one in twelve is a condition or a
  loop. Without one of the numbers it has the other steps still, so that a program can be made smaller.
  """
  def of(seed, numbers) do
    :rand.seed(:exsss, {seed, 11, 2})
    inputs = for _ <- 1..integer(1, 3), do: input()

    {steps, _} =
      Enum.flat_map_reduce(numbers, inputs, fn number, values ->
        :rand.seed(:exsss, {number, 11, 3})
        step(values, 8, if(integer(1, 12) == 1, do: &block/1, else: &operation/1))
      end)

    %__MODULE__{seed: {seed, numbers}, inputs: inputs, steps: steps}
  end

  @doc "The registers after the last step, as a tuple, for inputs on any backend or of a `defn`."
  def run(%{steps: steps}, inputs) do
    steps
    |> Enum.reduce(inputs, fn {_name, registers, fun}, values ->
      values ++ [fun.(Enum.map(registers, &Enum.at(values, &1)))]
    end)
    |> List.to_tuple()
  end

  @doc "The gradient of the sum of the last float among the registers, for the inputs that are floats."
  def gradient(program, inputs) do
    floats = for {x, at} <- Enum.with_index(inputs), Nx.Type.float?(x.type), do: {at, x}
    {places, tensors} = Enum.unzip(floats)

    Nx.Defn.grad(List.to_tuple(tensors), fn floats ->
      differentiable = Enum.zip(places, Tuple.to_list(floats)) |> Map.new()
      inputs = for {x, at} <- Enum.with_index(inputs), do: Map.get(differentiable, at, x)

      program
      |> run(inputs)
      |> Tuple.to_list()
      |> Enum.filter(&Nx.Type.float?(&1.type))
      |> List.last()
      |> Nx.real()
      |> Nx.sum()
    end)
  end

  @doc "Whether the program has a gradient: a float among its inputs."
  def gradient?(%{inputs: inputs}), do: Enum.any?(inputs, &Nx.Type.float?(&1.type))

  # What the guide of differences has (How Emily differs from Nx), by the kind of number that differs, each with its reason.
  @explained [
    {:zero, [:cbrt, :log1p, :erf, :round], "odd functions keep the sign of zero"},
    {:zero, [:sign], "Nx.BinaryBackend keeps the sign of zero, which has none"},
    {:zero, [:divide, :remainder], "what rounds to zero keeps its sign"},
    {:zero, [:pow, :atan2], "powers and angles of infinity are as in C"},
    {:zero, [:indexed_add], "Nx.BinaryBackend adds to zero, not to what is there"},
    {:zero, [:sort], "-0.0 comes before 0.0"},
    {:zero, [:max, :min, :reduce_max, :reduce_min, :cumulative_max, :cumulative_min],
     "of two zeros either"},
    {:zero, [:window_max, :window_min], "of two zeros either"},
    {:nan, [:clip],
     "NaN stays; Nx.BinaryBackend gives a bound, as an atom is more than any number"},
    {:nan, [:sign],
     "Nx.BinaryBackend takes NaN and -Inf for more than zero, as they are atoms there"},
    {:nan, [:pow, :tanh, :atan2], "of what is not finite as in C"},
    {:nan, [:window_product],
     "a part is beyond the type's range, and infinity times zero is NaN"},
    {:number, [:log1p], "next to zero Nx.BinaryBackend has the logarithm of what is 1 then"},
    {:complex, [:all, :any, :select],
     "zero is false; Nx.BinaryBackend takes a complex one for true"},
    {:complex, [:sign], "a direction; Nx.BinaryBackend gives 1"},
    {:complex, [:tanh], "next to zero Nx.BinaryBackend takes the difference of two exponentials"},
    {:complex, [:sigmoid], "next to a pole it has the digits that are left of 1 + exp(-z)"},
    {:complex, [:pow, :log1p, :atan], "zeros and branch cuts as in C"}
  ]

  @doc "Whether the guide of differences has such a difference of `Emily.CheckedBackend`."
  def explained?(name, kind),
    do: Enum.any?(@explained, fn {of, names, _reason} -> of == kind and name in names end)

  @doc "What a failure shows of a program."
  def describe(%{seed: seed, inputs: inputs, steps: steps}) do
    names =
      for {name, registers, _fun} <- steps, do: "  #{inspect(name)} of #{inspect(registers)}\n"

    shown = Enum.map(inputs, &"  #{inspect(&1, limit: :infinity)}\n")
    "program #{inspect(seed, limit: :infinity)}, inputs\n#{shown}steps\n#{names}"
  end

  ## Inputs

  defp input do
    type =
      one_of([
        one_of(@integers),
        one_of(floats()),
        one_of(floats()),
        one_of([{:c, 64}, {:f, 32}])
      ])

    tensor(type, shape(0, 3))
  end

  defp shape(least, most),
    do: List.to_tuple(for _ <- 1..integer(least, most)//1, do: one_of(@sizes))

  defp tensor(type, shape) do
    special? = integer(1, 4) == 1
    numbers = for _ <- 1..Tuple.product(shape), do: number(type, special?)
    numbers |> Nx.tensor(type: type, backend: Nx.BinaryBackend) |> Nx.reshape(shape)
  end

  defp number({kind, bits}, _special?) when kind in [:s, :u] do
    {low, high} = Lower.Types.integer_range(kind, bits)

    one_of([
      integer(max(low, -4), 4),
      integer(max(low, -300), min(high, 300)),
      one_of([low, high, 0])
    ])
  end

  defp number({:c, _}, _special?),
    do: Complex.new(number({:f, 32}, false), number({:f, 32}, false))

  defp number(_float, special?) do
    if special? and integer(1, 3) == 1,
      do: one_of([:nan, :infinity, :neg_infinity, 0.0, -0.0, -0.0]),
      else: one_of([integer(-4, 4) * 1.0, integer(-4000, 4000) / 1000, :rand.normal() * 3, -0.0])
  end

  ## Steps

  defp step(values, 0, _operation), do: {[], values}

  defp step(values, tries, operation) do
    {name, registers, fun} = operation.(values)
    taken = Enum.map(registers, &Enum.at(values, &1))

    with true <- Declared.within?(@most, fun, taken),
         result = fun.(taken),
         true <- Lower.type?(result.type) and Nx.size(result) <= @most do
      {[{name, registers, fun}], values ++ [result]}
    else
      false -> step(values, tries - 1, operation)
    end
  rescue
    _refused -> step(values, tries - 1, operation)
  end

  # Later registers more often than earlier ones.
  defp register(values),
    do: length(values) - 1 - min(integer(0, length(values) - 1), integer(0, length(values) - 1))

  defp operation(values) do
    at = register(values)
    x = Enum.at(values, at)

    case integer(1, 20) do
      n when n <= 4 ->
        name = one_of(@unary)
        {name, [at], fn [x] -> apply(Nx, name, [x]) end}

      n when n <= 8 ->
        name = one_of(@binary)
        {name, [at, register(values)], fn [x, y] -> apply(Nx, name, [x, y]) end}

      9 ->
        name = one_of([:add, :subtract, :multiply, :divide, :max, :pow, :greater, :equal])
        number = one_of([0.1, 2, -1, 0.5, 259, -0.0, 1.0e-3])
        {{name, number}, [at], fn [x] -> apply(Nx, name, [x, number]) end}

      10 ->
        type = one_of(@integers ++ floats() ++ [{:c, 64}])
        {{:as_type, type}, [at], fn [x] -> Nx.as_type(x, type) end}

      n when n <= 12 ->
        name = one_of(@reductions)
        opts = [axes: axes(x), keep_axes: integer(0, 1) == 1]
        {{name, opts}, [at], fn [x] -> apply(Nx, name, [x, opts]) end}

      13 ->
        name = one_of(@along)
        opts = [axis: integer(0, Nx.rank(x) - 1)]
        {{name, opts}, [at], fn [x] -> apply(Nx, name, [x, opts]) end}

      14 ->
        name = one_of(@windows)
        window = x.shape |> Tuple.to_list() |> Enum.map(&integer(1, &1)) |> List.to_tuple()

        opts = [
          padding: one_of([:valid, :same]),
          strides: for(_ <- Nx.axes(x), do: integer(1, 2))
        ]

        {{name, window, opts}, [at], fn [x] -> apply(Nx, name, [x, window, opts]) end}

      _ ->
        several(integer(1, 14), at, x, values)
    end
  end

  defp several(1, at, _x, values) do
    registers = [register(values), at, register(values)]
    {:select, registers, fn [p, x, y] -> Nx.select(p, x, y) end}
  end

  defp several(2, at, _x, _values) do
    {low, high} = {one_of([-1, -0.5, 0.0, 0]), one_of([1, 0.7, 2])}
    {{:clip, low, high}, [at], fn [x] -> Nx.clip(x, low, high) end}
  end

  defp several(3, at, x, _values) do
    # Nx.BinaryBackend does not end where no element is left.
    config =
      for size <- Tuple.to_list(x.shape),
          do: {integer(max(-1, 1 - size), 2), integer(0, 2), integer(0, 1)}

    # Nx.BinaryBackend pads integers with the bytes of a float: with each axis there are more of them than the shape says.
    value = one_of([0, 0.3, -0.0, 1])
    value = if Nx.Type.integer?(x.type), do: trunc(value), else: value
    {{:pad, value, config}, [at], fn [x] -> Nx.pad(x, value, config) end}
  end

  defp several(4, at, x, _values) do
    starts = for size <- Tuple.to_list(x.shape), do: integer(0, size - 1)

    lengths =
      for {size, start} <- Enum.zip(Tuple.to_list(x.shape), starts), do: integer(1, size - start)

    {{:slice, starts, lengths}, [at], fn [x] -> Nx.slice(x, starts, lengths) end}
  end

  defp several(5, at, _x, values),
    do: {:dot, [at, register(values)], fn [x, y] -> Nx.dot(x, y) end}

  defp several(6, at, x, _values) do
    last = Nx.axis_size(x, -1)
    columns = integer(1, 3)
    y = tensor(one_of([x.type, {:bf, 16}, {:s, 16}, {:s, 8}]), {last, columns})
    {{:dot, y.type}, [at], fn [x] -> Nx.dot(x, y) end}
  end

  defp several(7, at, x, _values) do
    kernel = tensor(one_of([x.type, {:f, 32}, {:bf, 16}]), {2, 1, integer(1, 2)})
    padding = one_of([:valid, :same, [{1, 0}]])

    fun = fn [x] ->
      x |> Nx.flatten() |> Nx.reshape({1, 1, :auto}) |> Nx.conv(kernel, padding: padding)
    end

    {{:conv, kernel.type, padding}, [at], fun}
  end

  defp several(8, at, x, _values) do
    indices =
      Nx.tensor(for(_ <- 1..4, do: [integer(0, elem(x.shape, 0) - 1)]), backend: Nx.BinaryBackend)

    updates = tensor(one_of([x.type, {:s, 16}, {:bf, 16}]), put_elem(x.shape, 0, 4))
    name = one_of([:indexed_add, :indexed_put])

    {{name, updates.type}, [at],
     fn [x] -> apply(Nx, name, [x, indices, updates, [axes: [0]]]) end}
  end

  defp several(9, at, x, values) do
    last = elem(x.shape, 0) - 1

    fun = fn [x, y] -> Nx.take(x, y |> Nx.as_type(:s32) |> Nx.max(0) |> Nx.min(last)) end
    {:take, [at, register(values)], fun}
  end

  defp several(10, at, _x, values),
    do: {:stack, [at, register(values)], fn tensors -> Nx.stack(tensors) end}

  defp several(11, at, _x, values),
    do: {:concatenate, [at, register(values)], fn tensors -> Nx.concatenate(tensors) end}

  defp several(12, at, x, values) do
    starts = for _ <- Nx.axes(x), do: integer(0, 1)
    {{:put_slice, starts}, [at, register(values)], fn [x, y] -> Nx.put_slice(x, starts, y) end}
  end

  # Matrices beyond those that Emily multiplies itself.
  defp several(13, at, x, _values) do
    type = one_of([x.type, {:bf, 16}, {:f, 32}])
    inner = integer(9, 30)
    y = tensor(type, {inner, integer(8, 12)})

    fun = fn [x] ->
      rows = x |> Nx.flatten() |> Nx.new_axis(-1) |> Nx.multiply(Nx.iota({1, inner}, type: type))
      Nx.dot(rows, y)
    end

    {{:dot, type, inner}, [at], fun}
  end

  defp several(14, at, x, _values) do
    kernel = tensor(one_of([x.type, {:f, 32}, {:bf, 16}]), {integer(1, 3), 2, 1, integer(1, 2)})

    opts = [
      padding: one_of([:valid, :same]),
      strides: [1, integer(1, 2)],
      kernel_dilation: [1, integer(1, 2)]
    ]

    fun = fn [x] -> x |> Nx.reshape({1, 2, 2, :auto}) |> Nx.conv(kernel, opts) end
    {{:conv, kernel.type, opts}, [at], fun}
  end

  # Branches and bodies keep the type and the shape. A branch reads a register from around it, too.
  defp block(values) do
    at = register(values)
    [yes, no] = for _ <- 1..2, do: one_of(@unary -- [:transpose, :squeeze])
    kept = fn x, name -> apply(Nx, name, [x]) |> Nx.as_type(x.type) end

    if integer(1, 2) == 1 do
      fun = fn [x, y, z] ->
        Blocks.choice(y, x, &kept.(&1, yes), &Nx.select(Nx.any(z), kept.(&1, no), &1))
      end

      {{:cond, yes, no}, [at, register(values), register(values)], fun}
    else
      times = integer(1, 4)
      {{:while, yes, times}, [at], fn [x] -> Blocks.loop(x, &kept.(&1, yes), times) end}
    end
  end

  defp axes(%T{} = x) do
    case for(at <- Nx.axes(x), integer(0, 1) == 1, do: at) do
      [] -> nil
      axes -> axes
    end
  end

  defp integer(low, high), do: low + :rand.uniform(high - low + 1) - 1
  defp one_of(list), do: Enum.at(list, :rand.uniform(length(list)) - 1)
end
