defmodule Emily.Native.Options do
  @moduledoc false
  # Options and paths that a public function is given.

  @doc """
  The options with the defaults of `allowed`, as `Keyword.validate!/2` has them; raises an `ArgumentError` also for what are
  no options at all, which names `function`.
  """
  @spec validate!(term(), keyword() | [atom()], String.t()) :: keyword()
  def validate!(opts, allowed, function) do
    if Keyword.keyword?(opts) do
      Keyword.validate!(opts, allowed)
    else
      raise ArgumentError,
            "#{function} expects a keyword list of options, got: #{inspect(opts, limit: 10)}"
    end
  end

  @doc "The absolute path of a path; raises an `ArgumentError` for what is none, which names `function`."
  @spec path!(term(), String.t()) :: Path.t()
  def path!(path, function) do
    path |> IO.chardata_to_string() |> Path.expand()
  rescue
    _ in [ArgumentError, FunctionClauseError, UnicodeConversionError] ->
      raise ArgumentError, "#{function} expects a path, got: #{inspect(path, limit: 10)}"
  end
end
