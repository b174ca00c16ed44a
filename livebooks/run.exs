# Runs the Elixir cells of a Livebook one after the other in this project, and prints what each gives.
#
#     mix run livebooks/run.exs livebooks/embeddings.livemd
#
# The cell that installs packages is left out: the project has them. Kino it has not, so the cells do
# without it where it is not there.

[path] = System.argv()

cells =
  for [_, cell] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, File.read!(path)),
      not String.starts_with?(cell, "Mix.install"),
      do: cell

if cells == [], do: raise("#{path} has no cells")

Enum.reduce(cells, {[], __ENV__}, fn cell, {binding, env} ->
  {value, binding, env} =
    cell |> Code.string_to_quoted!(file: path) |> Code.eval_quoted_with_env(binding, env)

  IO.puts("=> " <> if(is_binary(value), do: value, else: inspect(value)))
  {binding, env}
end)
