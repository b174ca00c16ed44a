defmodule Emily.GGUF.Blocks do
  @moduledoc false
  # GGML's types of elements: how many elements and bytes a block of them has, and which of them can be read.
  # Source: https://github.com/ggml-org/llama.cpp, ggml/src/ggml-common.h and ggml-quants.c.

  alias Emily.Quantization

  # Number in the file, name, elements and bytes of a block.
  @table [
    {0, :f32, 1, 4},
    {1, :f16, 1, 2},
    {2, :q4_0, 32, 18},
    {3, :q4_1, 32, 20},
    {6, :q5_0, 32, 22},
    {7, :q5_1, 32, 24},
    {8, :q8_0, 32, 34},
    {9, :q8_1, 32, 36},
    {10, :q2_k, 256, 84},
    {11, :q3_k, 256, 110},
    {12, :q4_k, 256, 144},
    {13, :q5_k, 256, 176},
    {14, :q6_k, 256, 210},
    {15, :q8_k, 256, 292},
    {16, :iq2_xxs, 256, 66},
    {17, :iq2_xs, 256, 74},
    {18, :iq3_xxs, 256, 98},
    {19, :iq1_s, 256, 50},
    {20, :iq4_nl, 32, 18},
    {21, :iq3_s, 256, 110},
    {22, :iq2_s, 256, 82},
    {23, :iq4_xs, 256, 136},
    {24, :i8, 1, 1},
    {25, :i16, 1, 2},
    {26, :i32, 1, 4},
    {27, :i64, 1, 8},
    {28, :f64, 1, 8},
    {29, :iq1_m, 256, 56},
    {30, :bf16, 1, 2},
    {34, :tq1_0, 256, 54},
    {35, :tq2_0, 256, 66},
    {39, :mxfp4, 32, 17}
  ]

  @sizes Map.new(@table, fn {_, name, elements, bytes} -> {name, {elements, bytes}} end)

  # Types whose bytes are MLX's.
  @plain %{
    f32: :f32,
    f16: :f16,
    bf16: :bf16,
    i8: :s8,
    i16: :s16,
    i32: :s32,
    i64: :s64
  }

  # Those that are MLX's affine mode in another order.
  @affine [:q8_0, :q4_0, :q4_1]

  @doc "The types that can be read as numbers."
  def readable, do: Map.keys(@plain) ++ quantized()

  @doc "Those of them that a model's parameters may have."
  def floats, do: [:f32, :f16, :bf16 | quantized()]

  @doc "The types that can be read as packed weights."
  def quantized, do: Quantization.Blocks.types()

  @doc "Those of them that can be read in MLX's affine mode."
  def affine, do: @affine

  @doc "How many elements and bytes a block has."
  def size(type), do: @sizes[type]

  @doc "The MLX type of a type whose bytes need no decoding, else `nil`."
  def plain(type), do: @plain[type]

  @doc "The name of a type by its number in a file."
  for {number, name, _, _} <- @table do
    def type(unquote(number)), do: {:ok, unquote(name)}
  end

  def type(number), do: {:error, "has the unknown type #{number}"}

  @doc "How many bytes elements of a type take, by their sizes in Nx's order."
  def length(type, sizes) do
    {elements, bytes} = @sizes[type]

    # A row is whole blocks.
    if rem(List.last(sizes) || 1, elements) == 0,
      do: {:ok, div(Enum.product(sizes), elements) * bytes},
      else: {:error, "of type #{type} has rows of #{List.last(sizes) || 1}, not of whole blocks"}
  end

  @doc "The shape of the bytes of a tensor of blocks: rows as in the tensor."
  def bytes(type, shape) do
    {elements, bytes} = @sizes[type]
    {leading, [row]} = shape |> Tuple.to_list() |> Enum.split(-1)
    leading ++ [div(row, elements) * bytes]
  end

  @doc """
  The packed triplet as expressions `{packed, scales, biases}`, as `mx::quantized_matmul` takes it in
  its affine mode with groups of 32: element `i` is `scale * q + bias`, its `q` in the bits from
  `i * width` on of little-endian words of 32 bits. `q` is not signed there, so what GGML counts
  from the middle moves into the bias: a product by a power of two, exact in f32.
  """
  def pack(type, raw, blocks, shape, dtype) do
    {packed, scale, bias} = packed(type, raw, blocks)
    scale = {:astype, scale, :f32}
    bias = if is_integer(bias), do: {:multiply, scale, {:full, [], bias, :f32}}, else: bias
    {rows, [row]} = Enum.split(shape, -1)
    words = div(row * width(type), 32)
    scales = rows ++ [div(row, 32)]

    {{:reshape, packed, rows ++ [words]}, {:reshape, {:astype, scale, dtype}, scales},
     {:reshape, {:astype, bias, dtype}, scales}}
  end

  @doc "How many bits a quantized element takes."
  def width(:q8_0), do: 8
  def width(type) when type in [:q4_0, :q4_1], do: 4

  defp packed(:q8_0, raw, blocks) do
    unsigned = {:bitwise_xor, columns(raw, blocks, 2, 34), {:full, [], 0x80, :u8}}
    {{:view, unsigned, :u32}, half(raw, blocks, 0), -128}
  end

  defp packed(:q4_0, raw, blocks),
    do: {words(columns(raw, blocks, 2, 18), blocks), half(raw, blocks, 0), -8}

  defp packed(:q4_1, raw, blocks) do
    {words(columns(raw, blocks, 4, 20), blocks), half(raw, blocks, 0), half(raw, blocks, 2)}
  end

  # GGML's byte holds the elements i and i + 16, MLX's the elements 2i and 2i + 1.
  defp words(bytes, blocks) do
    pairs = {:reshape, nibbles(bytes), [blocks, 16, 2]}
    first = {:slice, pairs, [0, 0, 0], [blocks, 16, 1], [1, 1, 1]}
    second = {:slice, pairs, [0, 0, 1], [blocks, 16, 2], [1, 1, 1]}
    bytes = {:bitwise_or, first, {:left_shift, second, {:full, [], 4, :u8}}}
    {:view, {:reshape, bytes, [blocks, 16]}, :u32}
  end

  # The low halves of the bytes are the first 16 elements, the high halves the last.
  defp nibbles(bytes) do
    low = {:bitwise_and, bytes, {:full, [], 0x0F, :u8}}
    {:concatenate, [low, {:right_shift, bytes, {:full, [], 4, :u8}}], 1}
  end

  defp half(raw, blocks, at), do: {:view, columns(raw, blocks, at, at + 2), :f16}

  defp columns(raw, blocks, from, to), do: {:slice, raw, [0, from], [blocks, to], [1, 1]}
end
