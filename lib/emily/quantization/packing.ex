defmodule Emily.Quantization.Packing do
  @moduledoc false
  # How a weight's numbers are packed, checked and written with Nx operations.

  @enforce_keys [:mode, :bits, :group_size]
  defstruct @enforce_keys

  import Bitwise

  alias Emily.Quantization.Blocks

  # The groups and the bits of each mode; the first are what it has where none are asked for.
  @modes Map.merge(Blocks.modes(), %{
           "affine" => {[64, 32, 128], [4, 2, 3, 5, 6, 8]},
           "mxfp4" => {[32], [4]},
           "mxfp8" => {[32], [8]},
           "nvfp4" => {[16], [4]}
         })

  @doc "The bits that a mode takes."
  def bits(mode), do: @modes[mode] |> elem(1) |> Enum.sort()

  @doc "The packing of a mode with these groups and bits, or its own where they are `nil`."
  def new!(fun, mode, group_size, bits) do
    case @modes do
      %{^mode => {groups, widths}} ->
        %__MODULE__{
          mode: mode,
          group_size: one_of!(fun, mode, :group_size, group_size, groups),
          bits: one_of!(fun, mode, :bits, bits, widths)
        }

      _ ->
        fail!(fun, "expects mode to be one of #{modes()}, got: #{inspect(mode)}")
    end
  end

  defp modes, do: @modes |> Map.keys() |> Enum.map_join(", ", &inspect/1)

  defp one_of!(_fun, _mode, _name, nil, [own | _]), do: own

  defp one_of!(fun, mode, name, value, allowed) do
    unless value in allowed do
      fail!(
        fun,
        "expects #{name} of mode #{inspect(mode)} to be " <>
          "#{allowed |> Enum.sort() |> Enum.join(", ")}, got: #{inspect(value)}"
      )
    end

    value
  end

  @doc "The packing of a weight, whose tensors fit it."
  def of!(fun, %Emily.QuantizedWeight{} = weight) do
    %{value: value, scales: scales, biases: biases} = weight
    packing = new!(fun, weight.mode, weight.group_size, weight.bits)

    for {name, tensor} <- [value: value, scales: scales, biases: biases] do
      unless is_struct(tensor, Nx.Tensor),
        do: fail!(fun, "expects #{name} to be a tensor, got: #{inspect(tensor)}")

      if tensor.vectorized_axes != [],
        do: fail!(fun, "does not take vectorized #{name} (use Nx.devectorize/2)")
    end

    unless is_boolean(weight.transpose) do
      fail!(fun, "expects transpose to be true or false, got: #{inspect(weight.transpose)}")
    end

    value!(fun, packing, value)
    factors!(fun, packing, scales, biases, value.shape)
    packing
  end

  def of!(fun, other),
    do: fail!(fun, "expects an Emily.QuantizedWeight, got: #{inspect(other)}")

  defp value!(fun, %{mode: "ggml_" <> _ = mode}, value) do
    {_numbers, bytes} = mode |> Blocks.type() |> Blocks.size()

    unless value.type == {:u, 8} and tuple_size(value.shape) >= 2 and
             rem(last(value.shape), bytes) == 0 do
      fail!(
        fun,
        "expects value of mode #{inspect(mode)} to be u8 of rank 2 or more, its rows whole blocks of " <>
          "#{bytes} bytes, got #{describe(value)}"
      )
    end
  end

  defp value!(fun, %{bits: bits, group_size: group_size} = packing, value) do
    unless value.type == {:u, 32} and tuple_size(value.shape) >= 2,
      do: fail!(fun, "expects value of type u32 and rank 2 or more, got #{describe(value)}")

    if rem(last(value.shape) * 32, bits) != 0 or
         rem(columns(packing, value.shape), group_size) != 0 do
      fail!(
        fun,
        "expects rows of value to hold whole groups of #{group_size} numbers of #{bits} bits, " <>
          "got #{describe(value)}"
      )
    end
  end

  # A block has its own.
  defp factors!(_fun, %{mode: "ggml_" <> _}, _scales, _biases, _shape), do: :ok

  defp factors!(fun, %{mode: "affine"} = packing, scales, biases, shape) do
    expected = factors(packing, shape)

    unless scales.type in [{:f, 32}, {:f, 16}, {:bf, 16}],
      do: fail!(fun, "expects scales of type f32, f16 or bf16, got #{describe(scales)}")

    shape!(fun, "scales", scales, expected)
    shape!(fun, "biases", biases, expected)

    unless biases.type == scales.type do
      fail!(
        fun,
        "expects biases of the type of scales, got #{describe(biases)} and #{describe(scales)}"
      )
    end
  end

  defp factors!(fun, packing, scales, _biases, shape) do
    unless scales.type == {:u, 8},
      do:
        fail!(
          fun,
          "expects scales of mode #{inspect(packing.mode)} to be u8, got #{describe(scales)}"
        )

    shape!(fun, "scales", scales, factors(packing, shape))
  end

  defp factors(packing, shape),
    do: put_last(shape, div(columns(packing, shape), packing.group_size))

  defp shape!(fun, name, tensor, shape) do
    unless tensor.shape == shape do
      fail!(fun, "expects #{name} of shape #{inspect(shape)}, got #{describe(tensor)}")
    end
  end

  @doc "How many numbers a row of packed words or blocks has."
  def columns(%{mode: "ggml_" <> _ = mode}, shape) do
    {numbers, bytes} = mode |> Blocks.type() |> Blocks.size()
    div(last(shape), bytes) * numbers
  end

  def columns(%{bits: bits}, shape), do: div(last(shape) * 32, bits)

  @doc "The shape of the numbers."
  def shape(packing, packed), do: put_last(packed, columns(packing, packed))

  @doc "The type in which the numbers are without rounding."
  def type(%{mode: "affine"}, scales), do: scales.type
  def type(_packing, _scales), do: {:f, 32}

  @doc """
  The numbers of packed words or blocks, in f32, by Nx operations alone. The tensors are those of `tensors/1`.
  """
  def numbers(%{mode: "ggml_" <> _ = mode}, [value]),
    do: mode |> Blocks.type() |> Blocks.numbers(value)

  def numbers(packing, [value, scales | biases]) do
    shape = shape(packing, value.shape)

    groups =
      shape
      |> put_last(last(scales.shape))
      |> Tuple.insert_at(tuple_size(shape), packing.group_size)

    codes = packing |> codes(value) |> Nx.reshape(groups)
    each = fn factors -> factors |> Nx.as_type(:f32) |> Nx.new_axis(-1) end

    numbers =
      case packing.mode do
        "affine" -> codes |> Nx.multiply(each.(scales)) |> Nx.add(each.(hd(biases)))
        "nvfp4" -> Nx.multiply(look_up(codes, e2m1()), each.(look_up(scales, e4m3())))
        "mxfp4" -> Nx.multiply(look_up(codes, e2m1()), each.(look_up(scales, e8m0())))
        "mxfp8" -> Nx.multiply(look_up(codes, e4m3()), each.(look_up(scales, e8m0())))
      end

    Nx.reshape(numbers, shape)
  end

  # The fewest whole words that hold whole codes are taken apart together: {..., units, words} gives
  # {..., units, codes}.
  defp codes(%{bits: bits}, value) do
    divisor = Integer.gcd(bits, 32)
    {words, codes} = {div(bits, divisor), div(32, divisor)}

    units =
      value.shape
      |> put_last(div(last(value.shape), words))
      |> Tuple.insert_at(tuple_size(value.shape), words)

    units = Nx.reshape(value, units)
    places = for place <- 0..(codes - 1), do: {div(place * bits, 32), rem(place * bits, 32)}

    low =
      units
      |> words(for {word, _} <- places, do: word)
      |> Nx.right_shift(constant(for {_, shift} <- places, do: shift))

    # Of a code that begins in one word and ends in the next.
    crosses = for {_, shift} <- places, do: shift + bits > 32

    all =
      if Enum.any?(crosses) do
        next =
          for {{word, _}, crosses} <- Enum.zip(places, crosses),
              do: if(crosses, do: word + 1, else: word)

        shifts =
          for {{_, shift}, crosses} <- Enum.zip(places, crosses),
              do: if(crosses, do: 32 - shift, else: 0)

        masks = for crosses <- crosses, do: if(crosses, do: 0xFFFFFFFF, else: 0)

        units
        |> words(next)
        |> Nx.left_shift(constant(shifts))
        |> Nx.bitwise_and(constant(masks))
        |> Nx.bitwise_or(low)
      else
        low
      end

    Nx.bitwise_and(all, constant([(1 <<< bits) - 1]))
  end

  defp words(units, places), do: Nx.take(units, constant(places), axis: -1)

  defp constant(numbers), do: Nx.tensor(numbers, type: :u32)

  defp look_up(codes, table), do: Nx.take(Nx.tensor(table, type: :f32), codes)

  ## Small floats, all of each

  # The Open Compute Project's Microscaling Formats (MX) Specification 1.0 has E2M1, E4M3 and E8M0. MLX, and so
  # Emily, takes what stands for NaN there as the number that follows: 480, and infinity.

  defp e2m1, do: for(code <- 0..15, do: small(code, 3, 1, 1))

  defp e4m3, do: for(code <- 0..255, do: small(code, 7, 3, 7))

  defp e8m0, do: for(code <- 0..254, do: :math.pow(2, code - 127)) ++ [:infinity]

  # The sign's bit, the bits of the mantissa, and the exponent of one.
  defp small(code, sign, mantissa, bias) do
    size = code &&& (1 <<< sign) - 1
    {exponent, fraction} = {size >>> mantissa, size &&& (1 <<< mantissa) - 1}
    implied = if exponent > 0, do: 1 <<< mantissa, else: 0
    number = (implied + fraction) * :math.pow(2, max(exponent, 1) - bias - mantissa)
    if code >>> sign == 1, do: -number, else: number
  end

  ## Shapes and errors

  @doc "The tensors of a weight that its mode looks at."
  def tensors(%{mode: "ggml_" <> _} = weight), do: [weight.value]
  def tensors(%{mode: "affine"} = weight), do: [weight.value, weight.scales, weight.biases]
  def tensors(weight), do: [weight.value, weight.scales]

  @doc "Sizes that broadcast, as a shape; `nil` where they do not."
  def broadcast(left, right) do
    rank = max(length(left), length(right))
    pad = fn sizes -> List.duplicate(1, rank - length(sizes)) ++ sizes end
    pairs = Enum.zip(pad.(left), pad.(right))

    if Enum.all?(pairs, fn {a, b} -> a == b or 1 in [a, b] end),
      do: pairs |> Enum.map(fn {a, b} -> max(a, b) end) |> List.to_tuple()
  end

  def last(shape), do: elem(shape, tuple_size(shape) - 1)

  def put_last(shape, size), do: put_elem(shape, tuple_size(shape) - 1, size)

  defdelegate describe(tensor), to: Emily.Fast.Check

  @spec fail!(String.t(), String.t()) :: no_return
  def fail!(fun, message), do: raise(ArgumentError, "#{fun} #{message}")
end
