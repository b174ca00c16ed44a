# Runs the Elixir cells of a Livebook one after the other in this project, and prints what each gives.
#
#     mix run livebooks/run.exs livebooks/embeddings.livemd
#
# The cell that installs packages is left out: the project has them. Kino it has not, and the cells do
# without it. Where ERL_LIBS names a folder with Kino compiled, they show their pictures and forms; the
# former are written to files, the latter are submitted with each of the texts that follow:
#
#     ERL_LIBS=../kino/_build/prod/lib mix run livebooks/run.exs livebooks/chat.livemd "Who are you?"

[path | texts] = System.argv()

cells =
  for [_, cell] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, File.read!(path)),
      not String.starts_with?(cell, "Mix.install"),
      do: cell

if cells == [], do: raise("#{path} has no cells")
kino? = Code.ensure_loaded?(Kino)
if texts != [] and not kino?, do: raise("there is no form without Kino")
if kino?, do: Code.require_file("page.exs", __DIR__)
page = if kino?, do: apply(Page, :open, [])

Enum.reduce(cells, {[], __ENV__}, fn cell, {binding, env} ->
  {value, binding, env} =
    cell |> Code.string_to_quoted!(file: path) |> Code.eval_quoted_with_env(binding, env)

  cond do
    kino? -> apply(Page, :show, [page, value])
    is_binary(value) -> IO.puts("=> " <> value)
    true -> IO.puts("=> " <> inspect(value))
  end

  {binding, env}
end)

if texts != [], do: apply(Page, :submit, [page, texts])
