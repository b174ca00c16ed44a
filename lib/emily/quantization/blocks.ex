defmodule Emily.Quantization.Blocks do
  @moduledoc false
  # The numbers of GGML's blocks by Nx operations alone. The kernels are in native/emily_kernels/src/quantized.
  # Source: https://github.com/ggml-org/llama.cpp, ggml/src/ggml-common.h and ggml-quants.c.

  # How many numbers share a scale, and how many bits one has.
  @types %{
    q4_0: {32, 4},
    q4_1: {32, 4},
    q5_0: {32, 5},
    q5_1: {32, 5},
    q8_0: {32, 8},
    q2_k: {16, 2},
    q3_k: {16, 3},
    q4_k: {32, 4},
    q5_k: {32, 5},
    q6_k: {16, 6},
    iq4_nl: {32, 4},
    iq4_xs: {32, 4},
    mxfp4: {32, 4}
  }

  @modes Map.new(@types, fn {type, _} -> {"ggml_#{type}", type} end)

  @doc "The modes, each with its groups and bits."
  def modes do
    for {mode, type} <- @modes, {group, bits} = @types[type], into: %{} do
      {mode, {[group], [bits]}}
    end
  end

  @doc "The types."
  def types, do: Map.keys(@types)

  @doc "A tensor of a type's blocks, which is on a device, as a weight."
  def weight(type, value, device) do
    {group, bits} = @types[type]
    none = Nx.tensor(0, type: :u8, backend: {Emily.Backend, device: device})

    %Emily.QuantizedWeight{
      value: value,
      scales: none,
      biases: none,
      group_size: group,
      bits: bits,
      mode: "ggml_#{type}"
    }
  end

  @doc "The type of a mode's blocks; `nil` where it has none."
  def type(mode), do: @modes[mode]

  @doc "How many numbers and bytes a block has."
  defdelegate size(type), to: Emily.GGUF.Blocks

  # What the codes of some types stand for.
  @uneven [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
  @twice_e2m1 [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]
  @half_e8m0 for exponent <- 0..255, do: :math.pow(2, exponent - 128)

  @doc "The numbers of bytes `{..., bytes}` in f32, as `{..., numbers}`."
  def numbers(type, value) do
    {numbers, bytes} = size(type)
    {group, _bits} = @types[type]
    {leading, [row]} = value.shape |> Tuple.to_list() |> Enum.split(-1)
    {codes, scale, least} = value |> Nx.reshape({:auto, bytes}) |> decode(type)
    by_group = fn tensor -> Nx.reshape(tensor, {:auto, div(numbers, group), 1}) end

    codes =
      codes |> Nx.as_type(:f32) |> Nx.reshape({:auto, div(numbers, group), group})

    numbers_of = Nx.multiply(by_group.(scale), codes)
    numbers_of = if least, do: Nx.subtract(numbers_of, by_group.(least)), else: numbers_of
    Nx.reshape(numbers_of, List.to_tuple(leading ++ [div(row, bytes) * numbers]))
  end

  # Each gives the codes of blocks, the scale of each group, and what is subtracted then.

  defp decode(blocks, :q4_0),
    do: {blocks |> bytes(2, 16) |> planes(1, [0, 4], 15) |> less(8), half(blocks, 0), nil}

  defp decode(blocks, :q4_1) do
    {blocks |> bytes(4, 16) |> planes(1, [0, 4], 15), half(blocks, 0), Nx.negate(half(blocks, 2))}
  end

  defp decode(blocks, :q5_0) do
    codes = joined(planes(bytes(blocks, 6, 16), 1, [0, 4], 15), fifth(blocks, 2), 4)
    {less(codes, 16), half(blocks, 0), nil}
  end

  defp decode(blocks, :q5_1) do
    codes = joined(planes(bytes(blocks, 8, 16), 1, [0, 4], 15), fifth(blocks, 4), 4)
    {codes, half(blocks, 0), Nx.negate(half(blocks, 2))}
  end

  defp decode(blocks, :q8_0),
    do: {blocks |> bytes(2, 32) |> Nx.bitcast(:s8), half(blocks, 0), nil}

  defp decode(blocks, :q2_k) do
    factors = bytes(blocks, 0, 16)

    {blocks |> bytes(16, 64) |> planes(2, [0, 2, 4, 6], 3),
     Nx.multiply(half(blocks, 80), Nx.bitwise_and(factors, 15)),
     Nx.multiply(half(blocks, 82), Nx.right_shift(factors, 4))}
  end

  defp decode(blocks, :q3_k) do
    low = blocks |> bytes(32, 64) |> planes(2, [0, 2, 4, 6], 3)
    high = blocks |> bytes(0, 32) |> planes(1, Enum.to_list(0..7), 1)

    scales =
      joined(
        planes(bytes(blocks, 96, 8), 1, [0, 4], 15),
        planes(bytes(blocks, 104, 4), 1, [0, 2, 4, 6], 3),
        4
      )

    {less(joined(low, high, 2), 4), Nx.multiply(half(blocks, 108), less(scales, 32)), nil}
  end

  defp decode(blocks, :q4_k) do
    {scale, least} = six_bits(blocks)
    {blocks |> bytes(16, 128) |> planes(4, [0, 4], 15), scale, least}
  end

  defp decode(blocks, :q5_k) do
    {scale, least} = six_bits(blocks)
    high = blocks |> bytes(16, 32) |> planes(1, Enum.to_list(0..7), 1)
    {blocks |> bytes(48, 128) |> planes(4, [0, 4], 15) |> joined(high, 4), scale, least}
  end

  defp decode(blocks, :q6_k) do
    low = blocks |> bytes(0, 128) |> planes(2, [0, 4], 15)
    high = blocks |> bytes(128, 64) |> planes(2, [0, 2, 4, 6], 3)
    scales = blocks |> bytes(192, 16) |> Nx.bitcast(:s8)
    {less(joined(low, high, 4), 32), Nx.multiply(half(blocks, 208), scales), nil}
  end

  defp decode(blocks, :iq4_nl) do
    codes = blocks |> bytes(2, 16) |> planes(1, [0, 4], 15) |> look_up(@uneven)
    {codes, half(blocks, 0), nil}
  end

  defp decode(blocks, :iq4_xs) do
    high = blocks |> bytes(2, 2) |> planes(2, [0, 2, 4, 6], 3)
    scales = blocks |> bytes(4, 4) |> planes(4, [0, 4], 15) |> joined(high, 4) |> less(32)
    codes = blocks |> bytes(8, 128) |> planes(8, [0, 4], 15) |> look_up(@uneven)
    {codes, Nx.multiply(half(blocks, 0), scales), nil}
  end

  defp decode(blocks, :mxfp4) do
    codes = blocks |> bytes(1, 16) |> planes(1, [0, 4], 15) |> look_up(@twice_e2m1)
    {codes, blocks |> bytes(0, 1) |> look_up(@half_e8m0), nil}
  end

  # The scales and steps of 32 numbers each, six bits each.
  defp six_bits(blocks) do
    [a, b, c] = for at <- [4, 8, 12], do: bytes(blocks, at, 4)
    high = fn bytes -> bytes |> Nx.right_shift(6) |> Nx.left_shift(4) end
    first = fn bytes -> Nx.bitwise_and(bytes, 63) end

    scales = Nx.concatenate([first.(a), Nx.bitwise_or(Nx.bitwise_and(c, 15), high.(a))], axis: 1)
    steps = Nx.concatenate([first.(b), Nx.bitwise_or(Nx.right_shift(c, 4), high.(b))], axis: 1)
    {Nx.multiply(half(blocks, 0), scales), Nx.multiply(half(blocks, 2), steps)}
  end

  defp bytes(blocks, at, count), do: Nx.slice_along_axis(blocks, at, count, axis: 1)

  # Bytes in so many sets, each taken apart: the bits from the first shift on of all its bytes, then from the next on.
  defp planes(bytes, sets, shifts, mask) do
    size = div(Nx.axis_size(bytes, 1), sets)
    shifts = shifts |> Nx.tensor(type: :u8) |> Nx.reshape({:auto, 1})
    planes = bytes |> Nx.reshape({:auto, sets, 1, size}) |> Nx.right_shift(shifts)
    planes |> Nx.bitwise_and(mask) |> Nx.reshape({Nx.axis_size(bytes, 0), :auto})
  end

  # The fifth bits of 32 numbers, in their order.
  defp fifth(blocks, at), do: blocks |> bytes(at, 4) |> planes(4, Enum.to_list(0..7), 1)

  defp joined(low, high, shift), do: Nx.bitwise_or(low, Nx.left_shift(high, shift))

  defp less(codes, by), do: codes |> Nx.as_type(:s16) |> Nx.subtract(by)

  defp look_up(codes, table), do: Nx.take(Nx.tensor(table, type: :f32), codes)

  defp half(blocks, at) do
    [low, high] = for at <- [at, at + 1], do: blocks |> bytes(at, 1) |> Nx.as_type(:u16)
    low |> Nx.bitwise_or(Nx.left_shift(high, 8)) |> Nx.bitcast(:f16) |> Nx.as_type(:f32)
  end
end
