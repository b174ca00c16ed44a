defmodule Cells do
  # A Livebook's cells of Elixir, and their evaluation one after the other, without Livebook.

  @doc "The cells, but for the one that installs packages."
  def of(path) do
    for [_, cell] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, File.read!(path)),
        not String.starts_with?(cell, "Mix.install"),
        do: cell
  end

  @doc "Evaluates the cells, gives what each gives to `show`, and answers their variables."
  def run(path, show) do
    cells = of(path)
    if cells == [], do: raise("#{path} has no cells")

    {binding, _env} =
      Enum.reduce(cells, {[], Code.env_for_eval(file: path)}, fn cell, {binding, env} ->
        {value, binding, env} =
          cell |> Code.string_to_quoted!(file: path) |> Code.eval_quoted_with_env(binding, env)

        show.(value)
        {binding, env}
      end)

    binding
  end
end
