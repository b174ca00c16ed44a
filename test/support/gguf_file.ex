defmodule Emily.GGUFFile do
  @moduledoc false
  # Writes small GGUF files for tests, well-formed or not.

  @types %{
    u8: 0,
    s8: 1,
    u16: 2,
    s16: 3,
    u32: 4,
    s32: 5,
    f32: 6,
    bool: 7,
    string: 8,
    array: 9,
    u64: 10,
    s64: 11,
    f64: 12
  }

  @doc """
  The bytes of a file. Metadata are `{key, type, value}`; tensors are `{name, ggml_type, sizes, bytes}` with
  the sizes in the file's order, and may name their offset as a fifth element.
  """
  def bytes(metadata, tensors, opts \\ []) do
    opts = Keyword.validate!(opts, version: 3, pairs: length(metadata), tensors: length(tensors))

    {infos, data} =
      Enum.map_reduce(tensors, <<>>, fn tensor, data ->
        {name, type, sizes, bytes} = tensor |> Tuple.to_list() |> Enum.take(4) |> List.to_tuple()
        offset = if tuple_size(tensor) == 5, do: elem(tensor, 4), else: byte_size(data)
        sizes = [<<length(sizes)::32-little>>, for(size <- sizes, do: <<size::64-little>>)]
        info = [string(name), sizes, <<type::32-little, offset::64-little>>]
        {info, pad(data <> bytes, 32)}
      end)

    header = [
      <<"GGUF", opts[:version]::32-little, opts[:tensors]::64-little, opts[:pairs]::64-little>>,
      for({key, type, value} <- metadata, do: [string(key), typed(type, value)]),
      infos
    ]

    pad(IO.iodata_to_binary(header), 32) <> data
  end

  @doc "Writes bytes to a new file of a temporary folder."
  def write(bytes, folder) do
    path = Path.join(folder, "#{System.unique_integer([:positive])}.gguf")
    File.write!(path, bytes)
    path
  end

  def string(text), do: <<byte_size(text)::64-little, text::binary>>

  defp typed({:raw, number}, bytes), do: [<<number::32-little>>, bytes]
  defp typed({:array, _} = type, value), do: [<<9::32-little>>, value(type, value)]
  defp typed(type, value), do: [<<@types[type]::32-little>>, value(type, value)]

  defp value({:array, {:array, _} = type}, list),
    do: [<<9::32-little, length(list)::64-little>>, Enum.map(list, &value(type, &1))]

  defp value({:array, type}, list),
    do: [<<@types[type]::32-little, length(list)::64-little>>, Enum.map(list, &value(type, &1))]

  defp value(:string, text), do: string(text)
  defp value(:bool, value), do: <<if(value, do: 1, else: 0)>>
  defp value(:f32, value) when is_binary(value), do: value
  defp value(:f32, value), do: <<value::float-32-little>>
  defp value(:f64, value) when is_binary(value), do: value
  defp value(:f64, value), do: <<value::float-64-little>>
  defp value(type, value) when type in [:u8, :s8], do: <<value::8>>
  defp value(type, value) when type in [:u16, :s16], do: <<value::16-little>>
  defp value(type, value) when type in [:u32, :s32], do: <<value::32-little>>
  defp value(type, value) when type in [:u64, :s64], do: <<value::64-little>>

  defp pad(bytes, to) do
    missing = Integer.mod(-byte_size(bytes), to)
    bytes <> :binary.copy(<<0>>, missing)
  end
end
