defmodule Emily.Native.Number do
  @moduledoc false
  # One element of an array as a number of Elixir's.

  @type t :: number() | :nan | :infinity | :neg_infinity | {number(), number()}

  @doc "The number that an element's bytes are."
  @spec decode(binary(), Emily.Native.dtype()) :: t()
  def decode(<<value>>, dtype) when dtype in [:bool, :u8], do: value
  def decode(<<value::16-native>>, :u16), do: value
  def decode(<<value::32-native>>, :u32), do: value
  def decode(<<value::64-native>>, :u64), do: value
  def decode(<<value::8-signed>>, :s8), do: value
  def decode(<<value::16-native-signed>>, :s16), do: value
  def decode(<<value::32-native-signed>>, :s32), do: value
  def decode(<<value::64-native-signed>>, :s64), do: value
  def decode(<<bits::16-native>>, :f16), do: float(<<bits::16>>, 16)
  # A bfloat16 is the upper half of a float32.
  def decode(<<bits::16-native>>, :bf16), do: float(<<bits::16, 0::16>>, 32)
  def decode(<<bits::32-native>>, :f32), do: float(<<bits::32>>, 32)
  def decode(<<bits::64-native>>, :f64), do: float(<<bits::64>>, 64)
  def decode(<<re::4-binary, im::4-binary>>, :c64), do: {decode(re, :f32), decode(im, :f32)}

  defp float(bits, size) do
    case bits do
      <<value::float-size(size)>> -> value
      <<0b011111::6, 0::10>> -> :infinity
      <<0b111111::6, 0::10>> -> :neg_infinity
      <<0b011111111::9, 0::23>> -> :infinity
      <<0b111111111::9, 0::23>> -> :neg_infinity
      <<0b011111111111::12, 0::52>> -> :infinity
      <<0b111111111111::12, 0::52>> -> :neg_infinity
      _ -> :nan
    end
  end
end
