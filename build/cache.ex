defmodule Emily.Build.Cache do
  @moduledoc false
  # The folder that holds what is fetched or built once for all projects of a user. Every entry is
  # made under a temporary name and renamed when complete, so a folder with an entry's name is whole.

  alias Emily.Build.{Command, Failure}

  @doc "The cache folder: `EMILY_CACHE`, or `emily` in the user's cache folder."
  def root do
    case System.get_env("EMILY_CACHE") do
      empty when empty in [nil, ""] -> :filename.basedir(:user_cache, "emily") |> to_string()
      folder -> Path.expand(folder)
    end
  end

  def path(parts), do: Path.join([root() | List.wrap(parts)])

  @doc """
  The entry at `parts`, made by `make.(temporary_folder)` if it is not there.

  Two builds that make the same entry at once both succeed: the second finds the first's.
  """
  def entry(parts, make) do
    target = path(parts)

    if not File.dir?(target) do
      temporary = "#{target}.#{System.pid()}.#{System.unique_integer([:positive])}.tmp"

      try do
        Failure.files("write to the cache #{root()}", fn ->
          File.mkdir_p!(temporary)
          make.(temporary)

          case File.rename(temporary, target) do
            :ok -> :ok
            {:error, _} -> File.dir?(target) || File.rename!(temporary, target)
          end
        end)
      after
        File.rm_rf(temporary)
      end
    end

    target
  end

  @doc "Runs `fun` while no other build of this user holds the lock `name`."
  def lock(name, fun) do
    folder = path("#{name}.lock")
    Failure.files("write to the cache #{root()}", fn -> File.mkdir_p!(root()) end)
    acquire(folder, false)

    try do
      fun.()
    after
      File.rm_rf(folder)
    end
  end

  defp acquire(folder, told) do
    case File.mkdir(folder) do
      :ok ->
        File.write!(Path.join(folder, "pid"), System.pid())

      {:error, :eexist} ->
        owner = owner(folder)

        if owner != :unknown and not alive?(owner) do
          File.rm_rf!(folder)
        else
          told || Mix.shell().info("emily: waiting for another build of Emily (process #{owner})")
          Process.sleep(300)
        end

        acquire(folder, true)

      {:error, reason} ->
        Failure.raise_file_error("write to the cache #{root()}", folder, reason)
    end
  end

  # The owner writes its number right after it made the folder; without one after a while it died between.
  defp owner(folder) do
    with {:error, _} <- File.read(Path.join(folder, "pid")),
         {:ok, %{mtime: made}} <- File.stat(folder, time: :posix) do
      if System.os_time(:second) - made > 10, do: "0", else: :unknown
    else
      {:ok, pid} when pid != "" -> pid
      _ -> :unknown
    end
  end

  defp alive?("0"), do: false
  defp alive?(pid), do: match?({_, 0}, Command.run("sh", ["-c", "kill -0 #{pid}"]))

  @doc "Deletes all entries of `folder` but the `count` used last."
  def keep_newest(folder, count) do
    path(folder)
    |> Path.join("*")
    |> Path.wildcard()
    |> Enum.sort_by(&File.stat!(&1, time: :posix).mtime, :desc)
    |> Enum.drop(count)
    |> Enum.each(&File.rm_rf/1)
  end

  @doc "Copies a file or folder by hard links where the file system allows it."
  def link(source, target) do
    cond do
      File.dir?(source) ->
        File.mkdir_p!(target)
        for name <- File.ls!(source), do: link(Path.join(source, name), Path.join(target, name))

      File.ln(source, target) != :ok ->
        File.cp!(source, target)

      true ->
        :ok
    end

    :ok
  end
end
