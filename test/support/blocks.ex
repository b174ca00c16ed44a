defmodule Emily.Blocks do
  @moduledoc false
  # The blocks of Elixir in a page of Markdown, and what runs them.
  #
  # What a block is, its beginning says:
  #
  #   * `iex>`: a doctest, which ExUnit.DocTest runs
  #   * `# mix.exs`: functions of a project
  #   * `# config/...`: a file of the configuration
  #   * anything else: code, run in the page's order with the variables of the blocks before it
  #
  # A block behind a comment `<!-- not run: REASON -->` is not run.

  @enforce_keys [:kind, :line, :text]
  defstruct [:kind, :line, :text, :reason]

  @block ~r/^(?:<!-- not run: (.+?) -->\n+)?```elixir\n(.*?)^```$/ms

  @doc "The pages that have blocks."
  def pages, do: ["README.md"] ++ Path.wildcard("guides/*.{md,cheatmd}")

  @doc "The blocks of a page, in order."
  def of(path) do
    page = File.read!(path)

    for [{at, _}, reason, {from, length}] <- Regex.scan(@block, page, return: :index) do
      text = binary_part(page, from, length)
      line = page |> binary_part(0, from) |> String.split("\n") |> length()
      reason = with {start, size} when start >= at <- reason, do: binary_part(page, start, size)
      reason = if is_binary(reason), do: reason
      %__MODULE__{kind: kind(text, reason), line: line, text: text, reason: reason}
    end
  end

  @doc "How many fences of Elixir a page has, however they stand there."
  def fences(path), do: ~r/```\s*elixir/ |> Regex.scan(File.read!(path)) |> length()

  defp kind(_text, reason) when is_binary(reason), do: :not_run
  defp kind("iex>" <> _, nil), do: :doctest
  defp kind("# mix.exs" <> _, nil), do: :project
  defp kind("# config/" <> _, nil), do: :config
  defp kind(_text, nil), do: :code

  @doc """
  Runs blocks of code one after the other, and answers their variables. `places` are texts to be replaced, and by what.
  """
  def run(blocks, path, places) do
    Enum.reduce(blocks, {[], Code.env_for_eval(file: path)}, fn block, {binding, env} ->
      quoted =
        Enum.reduce(places, block.text, fn {named, local}, text ->
          String.replace(text, named, inspect(local))
        end)
        |> Code.string_to_quoted!(file: path, line: block.line)

      {_value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
      {binding, env}
    end)
    |> elem(0)
  end

  @doc "The functions of a block of `mix.exs`, in a module of the name."
  def project(block, module) do
    {{:module, module, _, _}, _} =
      Code.eval_string("defmodule #{inspect(module)} do\n#{block.text}\nend")

    module
  end

  @doc "What a block of the configuration says, in the environment `env`."
  def config(block, folder, env) do
    path = Path.join(folder, "config.exs")
    text = if block.text =~ "import Config", do: block.text, else: "import Config\n" <> block.text
    File.write!(path, text)
    Config.Reader.read!(path, env: env)
  end
end
