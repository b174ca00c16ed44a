defmodule Attack.Files.Mutation do
  @moduledoc false
  # Bytes made of others: bits, lengths, pieces twice or gone, numbers at the ends of their ranges, broken UTF-8.

  import Attack.Draw

  @numbers [
    0,
    1,
    2 ** 31 - 1,
    2 ** 31,
    2 ** 32 - 1,
    2 ** 32,
    2 ** 62,
    2 ** 63 - 1,
    2 ** 63,
    2 ** 64 - 1,
    2 ** 64 - 8
  ]
  @texts [
           <<255>>,
           <<0xC3>>,
           <<0xED, 0xA0, 0x80>>,
           <<0>>,
           "\"",
           "{",
           "[",
           "]",
           "\\u0000",
           "\\ud800",
           "1e999",
           "-1",
           "-0"
         ] ++
           [
             "null",
             "1.5",
             "9223372036854775808",
             "18446744073709551615",
             "F4",
             "F64",
             "",
             "0",
             "[]",
             "{}"
           ]

  @doc "One to three changes."
  def mutate(bytes),
    do: Enum.reduce(1..integer(1, 3), bytes, fn _, bytes -> change(bytes, integer(1, 11)) end)

  defp change(bytes, kind) when byte_size(bytes) < 16 and kind != 7,
    do: change(bytes <> <<0::128>>, kind)

  defp change(bytes, 1) do
    {before, <<byte, rest::binary>>} = split(bytes, byte_size(bytes) - 1)
    before <> <<Bitwise.bxor(byte, Bitwise.bsl(1, integer(0, 7)))>> <> rest
  end

  defp change(bytes, 2) do
    {before, <<_, rest::binary>>} = split(bytes, byte_size(bytes) - 1)
    before <> <<integer(0, 255)>> <> rest
  end

  # A number in the place of another.
  defp change(bytes, 3), do: overwrite(bytes, <<pick(@numbers)::64-little>>)
  defp change(bytes, 4), do: overwrite(bytes, <<pick(@numbers)::32-little>>)
  defp change(bytes, 5), do: overwrite(bytes, <<integer(0, 300)::64-little>>)

  # Cut off, or longer.
  defp change(bytes, 6), do: binary_part(bytes, 0, integer(0, byte_size(bytes)))
  defp change(bytes, 7), do: bytes <> :rand.bytes(integer(1, 100))

  # A piece gone, or a piece twice.
  defp change(bytes, 8) do
    {before, rest} = split(bytes, byte_size(bytes))
    {_gone, rest} = :erlang.split_binary(rest, min(byte_size(rest), integer(1, 12)))
    before <> rest
  end

  defp change(bytes, 9) do
    {before, rest} = split(bytes, byte_size(bytes))
    piece = binary_part(rest, 0, min(byte_size(rest), integer(1, 60)))
    before <> piece <> rest
  end

  defp change(bytes, 10) do
    {before, rest} = split(bytes, byte_size(bytes))
    before <> pick(@texts) <> rest
  end

  # A number that is written, in the place of one.
  defp change(bytes, 11) do
    case Regex.scan(~r/\d+/, bytes, return: :index) do
      [] ->
        bytes

      places ->
        [{at, length}] = pick(places)
        <<before::binary-size(^at), _::binary-size(^length), rest::binary>> = bytes

        before <>
          pick(["#{pick(@numbers)}", "-1", "1.5", "null", "[]", "#{integer(0, 64)}"]) <> rest
    end
  end

  # Mostly near the front, where headers are.
  defp split(bytes, most) do
    most = if chance(0.5), do: most, else: min(most, 200)
    :erlang.split_binary(bytes, integer(0, most))
  end

  defp overwrite(bytes, piece) do
    {before, rest} = split(bytes, byte_size(bytes) - byte_size(piece))
    {_gone, rest} = :erlang.split_binary(rest, byte_size(piece))
    before <> piece <> rest
  end
end
