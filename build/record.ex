defmodule Emily.Build.Record do
  @moduledoc false
  # What a folder's files are: a line `path,sha256=hash,size` for each, as wheels have it in their RECORD
  # (https://packaging.python.org/en/latest/specifications/binary-distribution-format/). By it, a file that was cut
  # short, changed or lost is found before it is used.

  @name "RECORD"

  @doc "The name of the file that a folder's record is kept in."
  def name, do: @name

  @doc "Writes a folder's record into it, unless it has one, as an unpacked wheel has."
  def write!(folder) do
    if file(folder) == nil, do: File.write!(Path.join(folder, @name), of(folder))
  end

  @doc "The record of a folder as it is."
  def of(folder) do
    for path <- files(folder), path != @name, into: "" do
      file = Path.join(folder, path)
      "#{path},sha256=#{hash(file)},#{File.stat!(file).size}\n"
    end
  end

  @doc "What is wrong with a folder by the record in it; `nil` where nothing is."
  def damage(folder) do
    case file(folder) do
      nil -> "it has no record of its files"
      file -> damage(folder, File.read!(file), 0, Path.relative_to(file, folder))
    end
  end

  @doc """
  What is wrong with a folder by a record. Sizes are always compared; hashes of the files that were written at
  `since` or later, in seconds of Unix time. The file `own` is not looked at.
  """
  def damage(folder, record, since, own \\ nil) do
    recorded = parse(record)
    there = files(folder) -- [own]

    case {Map.keys(recorded) -- there, Enum.reject(there, &is_map_key(recorded, &1))} do
      {[lost | _], _} -> "#{lost} is not there"
      {[], [more | _]} -> "#{more} is not of it"
      {[], []} -> Enum.find_value(recorded, &changed(folder, &1, since))
    end
  end

  defp changed(folder, {path, {hash, size}}, since) do
    file = Path.join(folder, path)
    stat = File.stat!(file, time: :posix)

    cond do
      stat.size != size -> "#{path} has #{stat.size} bytes, not #{size}"
      stat.mtime >= since and hash(file) != hash -> "#{path} has another content"
      true -> nil
    end
  end

  # Of a wheel, the record of the record itself has no hash.
  defp parse(record) do
    for line <- String.split(record, "\n"),
        [_, path, hash, size] <- [Regex.run(~r/^"?(.+?)"?,sha256=([\w-]+),(\d+)\r?$/, line)],
        into: %{},
        do: {path, {hash, String.to_integer(size)}}
  end

  defp file(folder) do
    [Path.join(folder, @name) | Path.wildcard(Path.join(folder, "*.dist-info/#{@name}"))]
    |> Enum.find(&File.regular?/1)
  end

  @doc "A folder's files, sorted, relative to it."
  def files(folder) do
    folder
    |> File.ls!()
    |> Enum.sort()
    |> Enum.flat_map(fn name ->
      path = Path.join(folder, name)
      if File.dir?(path), do: Enum.map(files(path), &Path.join(name, &1)), else: [name]
    end)
  end

  defp hash(file), do: file |> sha256() |> Base.url_encode64(padding: false)

  @doc "A file's SHA-256."
  def sha256(file) do
    file
    |> File.stream!(1_048_576)
    |> Enum.reduce(:crypto.hash_init(:sha256), &:crypto.hash_update(&2, &1))
    |> :crypto.hash_final()
  end
end
