defmodule Emily.Safetensors.Header do
  @moduledoc false
  # The JSON at the front of a safetensors file: each tensor's type, shape and place.
  # Format: https://github.com/huggingface/safetensors#format

  alias Emily.Safetensors.{JSON, Tensor}

  # The format's own limit.
  @most 100_000_000

  @types %{
    "BOOL" => {:u, 8},
    "U8" => {:u, 8},
    "U16" => {:u, 16},
    "U32" => {:u, 32},
    "U64" => {:u, 64},
    "I8" => {:s, 8},
    "I16" => {:s, 16},
    "I32" => {:s, 32},
    "I64" => {:s, 64},
    "F8_E4M3" => {:f8_e4m3fn, 8},
    "F8_E5M2" => {:f, 8},
    "F16" => {:f, 16},
    "BF16" => {:bf, 16},
    "F32" => {:f, 32},
    "F64" => {:f, 64},
    "C64" => {:c, 64}
  }

  # Those that Nx has not, with their bits.
  @others %{
    "F4" => 4,
    "F6_E2M3" => 6,
    "F6_E3M2" => 6,
    "F8_E8M0" => 8,
    "F8_E4M3FNUZ" => 8,
    "F8_E5M2FNUZ" => 8
  }

  @bits Map.merge(Map.new(@types, fn {name, {_, bits}} -> {name, bits} end), @others)

  # Nx's sizes in MLX, and MLX's ranks.
  @largest 0x7FFFFFFF
  @ranks 32

  # How deep the JSON of a header goes, and how long its integers are.
  @depth 3
  @digits 20

  def read!(path, device) do
    case File.stat!(path) do
      %{type: :regular, size: size} ->
        {start, entries} = File.open!(path, [:read, :raw, :binary], &entries(&1, path, size))

        entries
        |> Enum.reject(fn {name, _} -> name == "__metadata__" end)
        |> Enum.map(&tensor(&1, start, path, size, device))
        |> disjoint(path)
        |> Map.new(&{&1.name, &1})

      %{type: type} ->
        fail(path, 0, "not a regular file but a #{type}")
    end
  end

  defp entries(file, path, size) do
    with {:ok, <<length::64-little>>} <- :file.pread(file, 0, 8) do
      if length > @most, do: fail(path, 0, "the header takes #{length} bytes, at most #{@most}")
      if 8 + length > size, do: fail(path, 0, "the file ends within its header")

      with {:ok, json} when byte_size(json) == length <- :file.pread(file, 8, length),
           {:ok, %{__struct__: Jason.OrderedObject, values: entries}} <-
             JSON.decode(json, @depth, @digits, objects: :ordered_objects) do
        names = Enum.map(entries, &elem(&1, 0))

        if names != Enum.uniq(names),
          do: fail(path, 8, "the name #{inspect(hd(names -- Enum.uniq(names)))} stands twice")

        {8 + length, entries}
      else
        {:error, %{__struct__: Jason.DecodeError, position: position}} ->
          fail(path, 8 + position, "the header is no JSON")

        _ ->
          fail(path, 8, "the header is no object of tensors")
      end
    else
      _ -> fail(path, 0, "the file ends within the length of its header")
    end
  end

  defp tensor(
         {name, %{__struct__: Jason.OrderedObject, values: values}},
         start,
         path,
         size,
         device
       ) do
    with %{"dtype" => dtype, "shape" => shape, "data_offsets" => [first, last]} <-
           Map.new(values),
         true <- is_binary(dtype) and is_list(shape),
         true <- Enum.all?([first, last | shape], &is_integer/1) do
      what = "the tensor #{inspect(name)}"

      if Enum.any?(shape, &(&1 < 0)),
        do: fail(path, 8, "#{what} has the shape #{inspect(shape, limit: 8)}")

      if first < 0 or start + last > size,
        do: fail(path, start + first, "#{what} reaches beyond the file's end")

      if last < first or not bytes?(dtype, shape, last - first),
        do: fail(path, start + first, "#{what} has #{last - first} bytes, not those of its shape")

      %Tensor{
        name: name,
        path: path,
        type: @types[dtype],
        shape: List.to_tuple(shape),
        offset: start + first,
        length: last - first,
        device: device,
        problem: problem(dtype, shape)
      }
    else
      _ -> not_a_tensor(path, name)
    end
  end

  defp tensor({name, _}, _start, path, _size, _device), do: not_a_tensor(path, name)

  # What a type unknown here takes, or a tensor of no rank of MLX's, is not reckoned.
  defp bytes?(dtype, shape, bytes) when is_map_key(@bits, dtype) and length(shape) <= @ranks,
    do: Enum.product(shape) * @bits[dtype] == 8 * bytes

  defp bytes?(_dtype, _shape, _bytes), do: true

  # Why a tensor in order cannot be read.
  defp problem(dtype, shape) do
    cond do
      not is_map_key(@types, dtype) ->
        "is of type #{inspect(dtype)}; this reads #{@types |> Map.keys() |> Enum.join(", ")}"

      0 in shape ->
        "has the shape #{inspect(shape, limit: 8)}, and Nx has no empty tensors"

      length(shape) > @ranks or Enum.any?(shape, &(&1 > @largest)) ->
        "has the shape #{inspect(shape, limit: 8)}, more than #{@ranks} dimensions or one above #{@largest}"

      true ->
        nil
    end
  end

  @spec not_a_tensor(Path.t(), String.t()) :: no_return()
  defp not_a_tensor(path, name),
    do: fail(path, 8, "#{inspect(name)} has no dtype, shape and data_offsets of a tensor")

  defp disjoint(tensors, path) do
    for [a, b] <-
          tensors |> Enum.sort_by(&{&1.offset, &1.length}) |> Enum.chunk_every(2, 1, :discard),
        a.offset + a.length > b.offset do
      fail(path, b.offset, "the tensors #{inspect(a.name)} and #{inspect(b.name)} overlap")
    end

    tensors
  end

  @spec fail(Path.t(), integer(), String.t()) :: no_return()
  defp fail(path, offset, problem) do
    raise ArgumentError, "Emily.Safetensors: #{path}: at byte #{offset}: #{problem}"
  end
end
