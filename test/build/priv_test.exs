defmodule Emily.PrivTest do
  use ExUnit.Case, async: true

  @moduletag skip: :os.type() != {:unix, :linux}

  defp priv, do: Path.join(Mix.Project.app_path(), "priv")

  defp files(folder) do
    for name <- File.ls!(folder),
        path = Path.join(folder, name),
        file <- if(File.dir?(path), do: files(path), else: [path]) do
      file
    end
  end

  test "holds plain files only, so that it can be copied" do
    for file <- files(priv()), do: assert(File.lstat!(file).type == :regular, file)
  end

  test "names no folder of this machine" do
    places = [System.user_home!(), File.cwd!(), Emily.Build.Cache.root()]

    for file <- files(priv()), content = File.read!(file), place <- places do
      refute String.contains?(content, place <> "/"), "#{file} contains #{place}"
    end
  end

  test "the NIF finds MLX beside itself" do
    {text, 0} = System.cmd("readelf", ["-d", Path.join(priv(), "libemily_nif.so")])
    assert text =~ "[$ORIGIN/mlx/lib]"
    assert text =~ "[libmlx.so]"
    {text, 0} = System.cmd("ldd", [Path.join(priv(), "libemily_nif.so")])

    # The CUDA variants also need libraries of the system's CUDA.
    for name <- ~w(libmlx libblas liblapack), [line] <- Regex.scan(~r/#{name}\S* => .*/, text) do
      assert line =~ "/priv/", line
    end
  end

  defp manifest, do: Path.join(Mix.Project.manifest_path(), "compile.emily_native")

  test "a second build does nothing" do
    assert Emily.Build.run(Mix.Project.app_path(), manifest()) == :noop
  end

  # In a folder beside the one that this VM runs from.
  @tag :tmp_dir
  test "a file that was changed is put back, from a cache that is whole", %{tmp_dir: folder} do
    beside = Path.join(folder, "priv")
    copy = Path.join(folder, "manifest")
    File.cp_r!(priv(), beside)
    File.cp!(manifest(), copy)
    assert Emily.Build.run(folder, copy) == :noop
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Quiet)
    on_exit(fn -> Mix.shell(shell) end)

    for file <- ["libemily_nif.so", "mlx/lib/libmlx.so"] do
      path = Path.join(beside, file)
      whole = File.read!(path)
      <<first, rest::binary>> = whole

      for text <- [binary_part(whole, 0, 100), "", <<Bitwise.bxor(first, 1), rest::binary>>, nil] do
        # Not in place: the file may be one with the cache's.
        File.rm!(path)
        if text, do: File.write!(path, text)
        assert Emily.Build.run(folder, copy) == :ok
        assert File.read!(path) == whole
      end
    end
  end
end
