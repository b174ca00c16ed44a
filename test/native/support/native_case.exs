defmodule NativeCase do
  @moduledoc false
  # Arrays from lists and back, and how near to a number a result has to be. Nothing here needs Nx.

  use ExUnit.CaseTemplate

  import Bitwise

  alias Emily.Native

  using do
    quote do
      import NativeCase
      alias Emily.Native
    end
  end

  @dtypes [:bool, :u8, :u16, :u32, :u64, :s8, :s16, :s32, :s64, :f16, :bf16, :f32, :f64, :c64]

  # The size of one in the last place of a number between 1 and 2. What is expected in f64 is
  # written with 8 digits.
  @ulp %{f16: 2 ** -10, bf16: 2 ** -7, f32: 2 ** -23, c64: 2 ** -23, f64: 1.0e-8}

  @infinity %{f16: 0x7C00, bf16: 0x7F80, f32: 0x7F80_0000, f64: 0x7FF0_0000_0000_0000}

  def dtypes, do: @dtypes

  @doc """
  The arguments of `elixir` that give another VM this one's modules. The working folder is left out: as a folder of
  code it would be the application of its name, and a checkout may be called emily.
  """
  def code_paths, do: Enum.flat_map(:code.get_path() -- [~c"."], &["-pa", to_string(&1)])

  @doc "So many milliseconds, or ten times as many where a processor is emulated (`bin/test-arm64`)."
  def limit(ms), do: if(System.get_env("EMILY_EMULATED"), do: 10 * ms, else: ms)

  @doc "The names in the table of operations of the Rust crate."
  def operations do
    table = File.read!(Path.expand("../../../native/emily_mlx/src/ops/table.rs", __DIR__))

    for [_, name] <- Regex.scan(~r/^ +([A-Z]\w+)(?: lapack)? =>/m, table),
        do: name |> Macro.underscore() |> String.to_atom()
  end

  @doc "MLX has f64 on the CPU only."
  def device(:f64), do: :cpu
  def device(_dtype), do: Native.default_device()

  @doc "An array of numbers, each a number, `:nan`, `:infinity`, `:neg_infinity` or `{re, im}`."
  def array(numbers, shape, dtype, device \\ nil) do
    numbers
    |> Enum.map(&encode(&1, dtype))
    |> IO.iodata_to_binary()
    |> Native.from_binary(shape, dtype, device || device(dtype))
  end

  def vector(numbers, dtype \\ :f32), do: array(numbers, [length(numbers)], dtype)
  def scalar(number, dtype \\ :f32), do: array([number], [], dtype)

  @doc "The one array of an expression."
  def run(expression, device \\ Native.default_device()) do
    [array] = Native.run([expression], device)
    array
  end

  @doc "The elements of an array, or of an expression."
  def numbers(expression) when is_tuple(expression), do: expression |> run() |> numbers()
  def numbers(array), do: array |> Native.to_binary() |> decode(Native.dtype(array))

  @doc "The numbers in a binary."
  def decode(binary, dtype) do
    size = size(dtype)
    for <<element::binary-size(size) <- binary>>, do: element(element, dtype)
  end

  def size(dtype) when dtype in [:bool, :u8, :s8], do: 1
  def size(dtype) when dtype in [:u16, :s16, :f16, :bf16], do: 2
  def size(dtype) when dtype in [:u32, :s32, :f32], do: 4
  def size(dtype) when dtype in [:u64, :s64, :f64, :c64], do: 8

  @doc "Asserts that numbers of a type differ by a few units in the last place at most."
  def assert_near(got, wanted, dtype, ulps \\ 4) do
    near? =
      length(got) == length(wanted) and Enum.all?(Enum.zip(got, wanted), &near?(&1, dtype, ulps))

    assert near?, "#{dtype}: #{inspect(got, limit: 60)} against #{inspect(wanted, limit: 60)}"
  end

  defp near?({{a, b}, {c, d}}, type, ulps),
    do: near?({a, c}, type, ulps) and near?({b, d}, type, ulps)

  defp near?({got, wanted}, type, ulps) when is_number(got) and is_number(wanted),
    do: abs(got - wanted) <= ulps * Map.get(@ulp, type, 0) * max(1, abs(wanted))

  defp near?({got, wanted}, _type, _ulps), do: got == wanted

  defp encode({re, im}, :c64), do: [encode(re, :f32), encode(im, :f32)]
  defp encode(number, :c64), do: encode({number, 0}, :c64)
  defp encode(:infinity, type), do: bits(@infinity[type], type)
  defp encode(:neg_infinity, type), do: bits(@infinity[type] + (1 <<< (size(type) * 8 - 1)), type)
  defp encode(:nan, type), do: bits((1 <<< (size(type) * 8 - 1)) - 1, type)
  defp encode(number, :f16), do: <<number::float-16-native>>
  defp encode(number, :f32), do: <<number::float-32-native>>
  defp encode(number, :f64), do: <<number::float-64-native>>

  defp encode(number, :bf16) do
    # The numbers of tests fit: the lower half is zero.
    <<upper::16, 0::16>> = <<number::float-32>>
    <<upper::16-native>>
  end

  defp encode(number, type), do: bits(trunc(number), type)

  defp bits(bits, type), do: <<bits::size(size(type) * 8)-native>>

  defp element(<<re::4-binary, im::4-binary>>, :c64), do: {element(re, :f32), element(im, :f32)}
  defp element(<<upper::16-native>>, :bf16), do: element(<<upper::16, 0::16>>, {:float, 32})
  defp element(<<bits::16-native>>, :f16), do: element(<<bits::16>>, {:float, 16})
  defp element(<<bits::32-native>>, :f32), do: element(<<bits::32>>, {:float, 32})
  defp element(<<bits::64-native>>, :f64), do: element(<<bits::64>>, {:float, 64})

  defp element(bits, {:float, size}) do
    case bits do
      <<number::float-size(size)>> -> number
      <<sign::1, bits::bitstring>> -> if nan?(bits, size), do: :nan, else: infinity(sign)
    end
  end

  defp element(bits, type) when type in [:s8, :s16, :s32, :s64] do
    size = bit_size(bits)
    <<number::signed-native-size(size)>> = bits
    number
  end

  defp element(bits, _unsigned) do
    size = bit_size(bits)
    <<number::unsigned-native-size(size)>> = bits
    number
  end

  defp nan?(bits, size) do
    exponent = %{16 => 5, 32 => 8, 64 => 11}[size]
    <<_::size(exponent), mantissa::size(size - exponent - 1)>> = bits
    mantissa != 0
  end

  defp infinity(0), do: :infinity
  defp infinity(1), do: :neg_infinity
end
