defmodule Emily.Native.Environment do
  @moduledoc false
  # What MLX reads from the environment when it is first used, by Emily's settings. A variable that is set already is left
  # alone, but for what a setting asks for.

  @doc "The setting `config :emily, matmul_precision: ...`, nil where there is none."
  def matmul_precision do
    case Application.get_env(:emily, :matmul_precision) do
      precision when precision in [nil, :tf32, :f32] ->
        precision

      other ->
        raise ArgumentError,
              "config :emily, :matmul_precision takes :tf32 or :f32, got: #{inspect(other)}"
    end
  end

  @doc "The variables, as names and values."
  def variables, do: precision(matmul_precision()) ++ kernels(System.get_env("MLX_PTX_CACHE_DIR"))

  defp precision(nil), do: []
  defp precision(:tf32), do: [{"MLX_ENABLE_TF32", "1"}]
  defp precision(:f32), do: [{"MLX_ENABLE_TF32", "0"}]

  # MLX's own folder goes with the temporary files, and does not tell cards or versions of CUDA apart.
  defp kernels(nil) do
    case cards() do
      [] -> []
      cards -> [{"MLX_PTX_CACHE_DIR", folder(cards)}]
    end
  end

  defp kernels(_set), do: []

  defp folder(cards) do
    cache = :filename.basedir(:user_cache, ~c"emily")
    Path.join([to_string(cache), "kernels", built_for(), Enum.join(cards, "+")])
  end

  # The library names itself by its size: another version or variant of MLX has another.
  defp built_for do
    library = :filename.join(:code.priv_dir(:emily), ~c"mlx/lib/libmlx.so")

    case File.stat(library) do
      {:ok, %{size: size}} -> Integer.to_string(size)
      {:error, _} -> "unknown"
    end
  end

  @doc "The NVIDIA cards of this machine, by the driver's names for them."
  def cards do
    names =
      for file <- Path.wildcard("/proc/driver/nvidia/gpus/*/information"),
          {:ok, text} <- [File.read(file)],
          [_, name] <- [Regex.run(~r/^Model:\s*(.+?)\s*$/m, text)],
          do: String.replace(name, ~r/[^A-Za-z0-9]+/, "-")

    names |> Enum.uniq() |> Enum.sort()
  end
end
