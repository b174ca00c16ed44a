defmodule Emily.GGUF.Header do
  @moduledoc false
  # Reads what stands before the numbers of a GGUF file: metadata, and each tensor's name, type, shape and place.
  # Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
  #
  # The header says nowhere how long it is: a part of the file is parsed, and where it turns out too
  # short, a longer one. Counts in the file are never believed: a list grows as its items are found.

  alias Emily.GGUF.{Blocks, Tensor}

  # A vocabulary of 256 thousand tokens with its merges takes about 15 MB. One byte of the header
  # takes at most 16 on the heap, as an item of a list.
  @most 64 * 1024 * 1024
  @first 16 * 1024 * 1024
  @deepest 8
  # The format's limit, and that of Nx's sizes in MLX.
  @ranks 4
  @largest 0x7FFFFFFF

  @types %{
    0 => :u8,
    1 => :s8,
    2 => :u16,
    3 => :s16,
    4 => :u32,
    5 => :s32,
    6 => :f32,
    7 => :bool,
    8 => :string,
    9 => :array,
    10 => :u64,
    11 => :s64,
    12 => :f64
  }

  @bytes %{u8: 1, s8: 1, u16: 2, s16: 2, u32: 4, s32: 4, f32: 4, bool: 1, u64: 8, s64: 8, f64: 8}

  @doc "The file's version, metadata, types of metadata and tensors."
  def read!(path) do
    case File.stat!(path) do
      %{type: :regular, size: size} ->
        File.open!(path, [:read, :raw, :binary], &attempt(&1, path, size, @first))

      %{type: type} ->
        raise ArgumentError, "Emily.GGUF: #{path}: not a regular file but a #{type}"
    end
  end

  defp attempt(file, path, size, length) do
    bytes = read(file, min(length, size))
    # A file that was cut since its size was asked for ends where it ends now.
    size = if byte_size(bytes) < min(length, size), do: byte_size(bytes), else: size
    context = %{path: path, size: size, read: byte_size(bytes)}

    case parse(bytes, context) do
      {:more, least} when least > @most ->
        fail(context, context.read, "the header takes more than #{@most} bytes")

      {:more, least} ->
        attempt(file, path, size, min(max(2 * length, least), @most))

      header ->
        header
    end
  end

  defp read(_file, 0), do: <<>>

  defp read(file, length) do
    case :file.pread(file, 0, length) do
      {:ok, bytes} -> bytes
      :eof -> <<>>
    end
  end

  defp parse(bytes, context) do
    {version, bytes} = version(bytes, context)
    {tensors, bytes} = integer(bytes, 64, context, "the number of tensors")
    {pairs, bytes} = integer(bytes, 64, context, "the number of metadata")
    {metadata, types, bytes} = metadata(pairs, bytes, %{}, %{}, context)
    alignment = alignment(metadata, types, context)
    {tensors, bytes} = tensors(tensors, bytes, [], MapSet.new(), context)
    start = align(offset(bytes, context), alignment)
    tensors = place(tensors, start, alignment, context)
    %{version: version, metadata: metadata, types: types, tensors: tensors}
  catch
    {:more, least} -> {:more, least}
  end

  defp version(<<"GGUF", version::32-little, rest::binary>>, _context) when version in 2..3,
    do: {version, rest}

  defp version(<<"GGUF", version::32-big, _::binary>>, context) when version in 1..3,
    do: fail(context, 4, "it is big-endian; only little-endian files are supported")

  defp version(<<"GGUF", version::32-little, _::binary>>, context),
    do: fail(context, 4, "its version is #{version}; versions 2 and 3 are supported")

  defp version(<<_::64, _::binary>>, context), do: fail(context, 0, "it is no GGUF file")
  defp version(bytes, context), do: short(bytes, 8, context, "the version")

  ## Metadata

  defp metadata(0, bytes, metadata, types, _context), do: {metadata, types, bytes}

  defp metadata(count, bytes, metadata, types, context) do
    {key, rest} = string(bytes, context, "a key")

    if is_map_key(metadata, key),
      do: fail(context, offset(bytes, context), "the key #{inspect(key)} stands twice")

    {type, rest} = type(rest, context, key)
    {value, type, rest} = value(type, rest, context, key, 0)
    metadata = Map.put(metadata, key, value)
    metadata(count - 1, rest, metadata, Map.put(types, key, type), context)
  end

  defp type(bytes, context, key) do
    {number, rest} = integer(bytes, 32, context, "the type of #{inspect(key)}")

    case @types do
      %{^number => type} -> {type, rest}
      _ -> fail(context, offset(bytes, context), "#{inspect(key)} has the unknown type #{number}")
    end
  end

  defp value(:array, bytes, context, key, depth) do
    if depth == @deepest do
      problem = "#{inspect(key)} has arrays nested deeper than #{@deepest}"
      fail(context, offset(bytes, context), problem)
    end

    {type, rest} = type(bytes, context, key)
    {count, rest} = integer(rest, 64, context, "the length of #{inspect(key)}")

    {list, type, rest} =
      with :string <- type,
           {list, rest} <- strings(rest, count, []) do
        {list, type, rest}
      else
        _ -> list(count, type, rest, context, key, depth + 1, [])
      end

    {list, {:array, type}, rest}
  end

  defp value(type, bytes, context, key, _depth) do
    {value, rest} = scalar(type, bytes, context, key)
    {value, type, rest}
  end

  # A vocabulary, by the quickest way; `nil` where something is wrong, which `list/7` tells the place of.
  defp strings(<<rest::binary>>, 0, list), do: {Enum.reverse(list), rest}

  defp strings(<<length::64-little, string::binary-size(length), rest::binary>>, count, list) do
    # A part of the buffer would keep all of it.
    if String.valid?(string), do: strings(rest, count - 1, [:binary.copy(string) | list])
  end

  defp strings(_bytes, _count, _list), do: nil

  defp list(0, type, bytes, _context, _key, _depth, list), do: {Enum.reverse(list), type, bytes}

  # Arrays in an array may differ in type.
  defp list(count, :array, bytes, context, key, depth, list) do
    {value, _type, rest} = value(:array, bytes, context, key, depth)
    list(count - 1, :array, rest, context, key, depth, [value | list])
  end

  defp list(count, type, bytes, context, key, depth, list) do
    {value, rest} = scalar(type, bytes, context, key)
    list(count - 1, type, rest, context, key, depth, [value | list])
  end

  defp scalar(:u8, <<value, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:s8, <<value::8-signed, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:u16, <<value::16-little, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:s16, <<value::16-little-signed, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:u32, <<value::32-little, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:s32, <<value::32-little-signed, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:u64, <<value::64-little, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:s64, <<value::64-little-signed, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:f32, <<value::float-32-little, rest::binary>>, _, _), do: {value, rest}
  defp scalar(:f64, <<value::float-64-little, rest::binary>>, _, _), do: {value, rest}
  # What is left is not finite: without a fraction an infinity, else NaN.
  defp scalar(:f32, <<0::16, 0x80, 0x7F, rest::binary>>, _, _), do: {:infinity, rest}
  defp scalar(:f32, <<0::16, 0x80, 0xFF, rest::binary>>, _, _), do: {:neg_infinity, rest}
  defp scalar(:f32, <<_::32, rest::binary>>, _, _), do: {:nan, rest}
  defp scalar(:f64, <<0::48, 0xF0, 0x7F, rest::binary>>, _, _), do: {:infinity, rest}
  defp scalar(:f64, <<0::48, 0xF0, 0xFF, rest::binary>>, _, _), do: {:neg_infinity, rest}
  defp scalar(:f64, <<_::64, rest::binary>>, _, _), do: {:nan, rest}
  defp scalar(:bool, <<value, rest::binary>>, _, _) when value in 0..1, do: {value == 1, rest}

  defp scalar(:bool, <<value, _::binary>> = bytes, context, key),
    do: fail(context, offset(bytes, context), "#{inspect(key)} has #{value} for a boolean")

  defp scalar(:string, bytes, context, key), do: string(bytes, context, {:of, key})
  defp scalar(type, bytes, context, key), do: short(bytes, @bytes[type], context, {:of, key})

  defp string(<<length::64-little, rest::binary>> = bytes, context, what) do
    case rest do
      <<string::binary-size(length), rest::binary>> ->
        if not String.valid?(string),
          do:
            fail(
              context,
              offset(bytes, context),
              "#{name(what)} is not UTF-8: #{inspect(string)}"
            )

        # A part of the buffer would keep all of it.
        {:binary.copy(string), rest}

      _ ->
        short(rest, length, context, what)
    end
  end

  defp string(bytes, context, what), do: short(bytes, 8, context, what)

  defp integer(bytes, bits, context, what) do
    case bytes do
      <<value::size(^bits)-little, rest::binary>> -> {value, rest}
      _ -> short(bytes, div(bits, 8), context, what)
    end
  end

  defp alignment(%{"general.alignment" => value}, types, context) do
    if types["general.alignment"] == :u32 and value in 8..0x10000//8,
      do: value,
      else: fail(context, 0, "general.alignment is #{inspect(value)}, no multiple of 8 to 65536")
  end

  defp alignment(%{}, _types, _context), do: 32

  ## Tensors

  defp tensors(0, bytes, tensors, _names, _context), do: {Enum.reverse(tensors), bytes}

  defp tensors(count, bytes, tensors, names, context) do
    at = offset(bytes, context)
    {name, bytes} = string(bytes, context, "a tensor's name")
    what = "the tensor #{inspect(name)}"
    if name in names, do: fail(context, at, "#{what} stands twice")

    {rank, bytes} = integer(bytes, 32, context, what)
    if rank > @ranks, do: fail(context, at, "#{what} has #{rank} dimensions, at most #{@ranks}")
    {sizes, bytes} = sizes(rank, bytes, [], context, what)

    if size = Enum.find(sizes, &(&1 not in 1..@largest)),
      do: fail(context, at, "#{what} has a dimension of #{size}, not 1..#{@largest}")

    {number, bytes} = integer(bytes, 32, context, what)
    {offset, bytes} = integer(bytes, 64, context, what)

    with {:ok, type} <- Blocks.type(number),
         # The first dimension in the file is the one whose elements are neighbours: Nx's last.
         {:ok, length} <- Blocks.length(type, sizes) do
      tensor = %Tensor{
        name: name,
        type: type,
        shape: List.to_tuple(sizes),
        offset: offset,
        length: length
      }

      tensors(count - 1, bytes, [tensor | tensors], MapSet.put(names, name), context)
    else
      {:error, problem} -> fail(context, at, "#{what} #{problem}")
    end
  end

  # Read in the file's order and reversed by gathering them.
  defp sizes(0, bytes, sizes, _context, _what), do: {sizes, bytes}

  defp sizes(rank, bytes, sizes, context, what) do
    {size, bytes} = integer(bytes, 64, context, what)
    sizes(rank - 1, bytes, [size | sizes], context, what)
  end

  # Offsets in the file count from the end of the header, aligned.
  defp place(tensors, start, alignment, context) do
    placed = for tensor <- tensors, do: %{tensor | offset: start + tensor.offset}

    for %{name: name, offset: at, length: length} <- placed do
      what = "the tensor #{inspect(name)}"

      if rem(at - start, alignment) != 0,
        do: fail(context, at, "#{what} is not aligned to #{alignment} bytes")

      if at + length > context.size,
        do: fail(context, at, "#{what} of #{length} bytes reaches beyond the file's end")
    end

    for [a, b] <- placed |> Enum.sort_by(& &1.offset) |> Enum.chunk_every(2, 1, :discard),
        a.offset + a.length > b.offset do
      fail(context, b.offset, "the tensors #{inspect(a.name)} and #{inspect(b.name)} overlap")
    end

    Map.new(placed, &{&1.name, &1})
  end

  defp align(offset, alignment), do: div(offset + alignment - 1, alignment) * alignment

  ## Failures

  defp offset(bytes, context), do: context.read - byte_size(bytes)

  # The buffer ends here: the file may go on.
  @spec short(binary(), non_neg_integer(), map(), String.t() | {:of, String.t()}) :: no_return()
  defp short(bytes, need, context, what) do
    at = offset(bytes, context)

    if at + need > context.size,
      do: fail(context, at, "the file ends within #{name(what)}"),
      else: throw({:more, at + need})
  end

  # What is read, by its key in the metadata: a file has so many strings that their text is made where it is told alone.
  defp name({:of, key}), do: inspect(key)
  defp name(text), do: text

  @spec fail(map(), non_neg_integer(), String.t()) :: no_return()
  defp fail(context, offset, problem) do
    raise ArgumentError, "Emily.GGUF: #{context.path}: at byte #{offset}: #{problem}"
  end
end
