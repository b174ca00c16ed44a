defmodule Emily.Safetensors.JSON do
  @moduledoc false
  # JSON in files, or in front of one: what is nested deeper, or has longer numbers, than such a file has, is not given to the
  # parser. It could take a multiple of the file in memory, or minutes for one number.

  @compile {:no_warn_undefined, Jason}

  # An index of a hundred thousand tensors takes 10 MB.
  @most 32 * 1024 * 1024
  @depth 32
  # As many as a float of 64 bits has in front of its point.
  @digits 310

  @doc """
  The object in a file, `{:ok, map}`; `:error` where that is no regular file, too large, or not JSON of an object.

  Raises `File.Error` where it cannot be read.
  """
  def read!(path) do
    with %{type: :regular, size: size} when size <= @most <- File.stat!(path),
         # No more than that, should the file grow.
         {:ok, json} <- File.open!(path, [:read, :raw, :binary], &:file.pread(&1, 0, size)),
         {:ok, %{} = object} <- decode(json, @depth, @digits) do
      {:ok, object}
    else
      _ -> :error
    end
  end

  @doc "What Jason makes of a text; `:refused` where its nesting or a number's digits are beyond the bounds."
  def decode(json, depth, digits, opts \\ []) do
    with :ok <- plain(json, depth, digits), do: Jason.decode(json, opts)
  end

  defp plain(<<char, _::binary>>, 0, _digits) when char in ~c"{[", do: :refused

  defp plain(<<char, rest::binary>>, depth, digits) when char in ~c"{[",
    do: plain(rest, depth - 1, digits)

  defp plain(<<char, rest::binary>>, depth, digits) when char in ~c"}]",
    do: plain(rest, depth + 1, digits)

  defp plain(<<?", rest::binary>>, depth, digits),
    do: rest |> behind_string() |> plain(depth, digits)

  defp plain(<<char, _::binary>> = bytes, depth, digits) when char in ?0..?9,
    do: number(bytes, depth, digits, digits)

  defp plain(<<_, rest::binary>>, depth, digits), do: plain(rest, depth, digits)
  defp plain(<<>>, _depth, _digits), do: :ok

  defp number(<<char, _::binary>>, _depth, _digits, 0) when char in ?0..?9, do: :refused

  defp number(<<char, rest::binary>>, depth, digits, left) when char in ?0..?9,
    do: number(rest, depth, digits, left - 1)

  defp number(bytes, depth, digits, _left), do: plain(bytes, depth, digits)

  defp behind_string(<<?\\, _, rest::binary>>), do: behind_string(rest)
  defp behind_string(<<?", rest::binary>>), do: rest
  defp behind_string(<<_, rest::binary>>), do: behind_string(rest)
  defp behind_string(<<>>), do: <<>>
end
