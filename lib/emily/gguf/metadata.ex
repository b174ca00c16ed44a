defmodule Emily.GGUF.Metadata do
  @moduledoc false
  # Metadata of a kind: what a file says is checked where it is used.

  @doc "The value of a key; raises where it is missing or of another kind."
  def fetch!(gguf, key, kind) do
    case gguf.metadata do
      %{^key => value} -> check(gguf, key, kind, value)
      _ -> fail(gguf, "there is no #{key}")
    end
  end

  @doc "The value of a key, or `default` where it is missing."
  def get(gguf, key, kind, default \\ nil) do
    case gguf.metadata do
      %{^key => value} -> check(gguf, key, kind, value)
      _ -> default
    end
  end

  @doc "The id of a token by its key's name, below `count`; `nil` where it is missing."
  def token_id(gguf, name, count) do
    key = "tokenizer.ggml.#{name}_token_id"
    id = get(gguf, key, :count)
    if id && id >= count, do: fail(gguf, "#{key} is #{id}, beyond the tokens")
    id
  end

  defp check(gguf, key, kind, value) do
    if kind?(kind, value),
      do: value,
      else: fail(gguf, "#{key} is #{inspect(value, limit: 5)}, no #{kind}")
  end

  defp kind?(:count, value), do: value in 0..0x7FFFFFFF
  defp kind?(:size, value), do: value in 1..0x7FFFFFFF
  # Within the normal numbers of f32, in which it is used.
  defp kind?(:positive, value), do: positive?(value)

  defp kind?(:boolean, value), do: is_boolean(value)
  defp kind?(:string, value), do: is_binary(value)
  defp kind?(:strings, value), do: is_list(value) and Enum.all?(value, &is_binary/1)
  defp kind?(:integers, value), do: is_list(value) and Enum.all?(value, &is_integer/1)
  defp kind?(:numbers, value), do: is_list(value) and Enum.all?(value, &is_number/1)
  defp kind?(:booleans, value), do: is_list(value) and Enum.all?(value, &is_boolean/1)

  @doc "Whether a value is a number above zero that f32 has."
  def positive?(value),
    do: is_number(value) and value >= 1.1754943508222875e-38 and value <= 3.4028234663852886e38

  @spec fail(Emily.GGUF.t(), String.t()) :: no_return()
  def fail(gguf, problem), do: raise(ArgumentError, "Emily.GGUF: #{gguf.path}: #{problem}")
end
