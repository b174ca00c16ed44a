defmodule Emily.Build.Cache do
  @moduledoc false
  # The folder that holds what is fetched or built once for all projects of a user. Every entry is
  # made under a temporary name and renamed when complete, so a folder with an entry's name is whole.
  # It has a record of its files, and one that is not by its record any more is made again.

  import Bitwise

  alias Emily.Build.{Failure, Lock, Record}

  @doc "The cache folder: `EMILY_CACHE`, or `emily` in the user's cache folder."
  def root do
    case System.get_env("EMILY_CACHE") do
      empty when empty in [nil, ""] -> :filename.basedir(:user_cache, "emily") |> to_string()
      folder -> Path.expand(folder)
    end
  end

  def path(parts), do: Path.join([root() | List.wrap(parts)])

  @doc """
  The entry at `parts`, made by `make.(temporary_folder)` if it is not there or damaged.

  Two builds that make the same entry at once both succeed: the second finds the first's.
  """
  def entry(parts, make) do
    target = path(parts)

    Failure.files("write to the cache #{root()}", fn ->
      claim(target)

      cond do
        not File.dir?(target) ->
          make(target, make)

        damage = Record.damage(target) ->
          Mix.shell().info("emily: #{target} is damaged and made again: #{damage}")
          make(target, make)

        true ->
          :ok
      end
    end)

    target
  end

  defp make(target, make) do
    damaged = File.dir?(target)
    temporary = temporary(target)
    old = temporary(target)

    try do
      make_own(Path.dirname(target))
      make_own(temporary)
      make.(temporary)
      Record.write!(temporary)
      # Whoever uses the damaged one keeps its files.
      if damaged, do: File.rename(target, old)

      case File.rename(temporary, target) do
        :ok -> :ok
        {:error, _} -> File.dir?(target) || File.rename!(temporary, target)
      end
    after
      File.rm_rf(temporary)
      File.rm_rf(old)
    end
  end

  defp temporary(target),
    do: "#{target}.#{System.pid()}.#{System.unique_integer([:positive])}.tmp"

  # Who can write to the cache decides what code runs here: only its owner may, and that is who builds.
  defp claim(target) do
    root = root()
    make_own(root)
    user = user(root)

    target
    |> Path.relative_to(root)
    |> Path.split()
    |> Enum.scan(root, &Path.join(&2, &1))
    |> Enum.filter(&File.dir?/1)
    |> then(&Enum.each([root | &1], fn folder -> check_owner(folder, user) end))
  end

  defp make_own(folder) do
    if not File.dir?(folder) do
      File.mkdir_p!(folder)
      File.chmod!(folder, 0o700)
    end
  end

  defp check_owner(folder, user) do
    %{uid: owner, mode: mode} = File.stat!(folder)

    if owner != user do
      Failure.stop(
        "the cache #{folder} belongs to another user (number #{owner}).",
        "Set EMILY_CACHE to a folder of your own."
      )
    end

    if (mode &&& 0o022) != 0 do
      Failure.stop(
        "the cache #{folder} may be written by other users.",
        "If you trust what is in it: `chmod -R go-w #{root()}`. Else delete it, or set EMILY_CACHE to another folder."
      )
    end
  end

  # The number of the user who runs this: the owner of a new file.
  defp user(folder) do
    file = temporary(Path.join(folder, "user"))

    try do
      File.write!(file, "", [:exclusive])
      File.stat!(file).uid
    after
      File.rm(file)
    end
  end

  @doc "Runs `fun` while no other build of this user holds the lock `name`."
  def lock(name, fun) do
    Failure.files("write to the cache #{root()}", fn -> claim(root()) end)
    Lock.hold(path("#{name}.lock"), fun)
  end

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
