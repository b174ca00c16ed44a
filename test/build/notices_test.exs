defmodule Emily.Build.NoticesTest do
  # What is shipped beside Emily has its licence beside it.
  use ExUnit.Case, async: true

  @priv Application.app_dir(:emily, "priv")

  test "MLX's licence is in priv/" do
    assert File.read!(Path.join(@priv, "notices/mlx/LICENSE")) =~ "MIT License"
  end

  test "so is one of each library that is bundled for OpenBLAS" do
    bundled = [@priv, "*.libs/lib{openblas,gfortran,quadmath}*"] |> Path.join() |> Path.wildcard()

    # Without OpenBLAS they are those of MLX's wheel.
    if Enum.any?(bundled, &(&1 =~ "openblas")) do
      for library <- bundled do
        name = if library =~ "openblas", do: "openblas", else: Path.basename(library)
        assert File.read!(Path.join([@priv, "notices", name, "copyright"])) =~ ~r/BSD|GPL/
      end
    end
  end
end
