defmodule Emily.Compiler.Weight do
  @moduledoc false
  # The memory that a copy of a term holds: its words, and the binaries and arrays that it refers to.

  alias Emily.{Backend, Native}

  @word :erlang.system_info(:wordsize)

  @doc "The bytes of a term without parts that it shares."
  @spec bytes(term) :: non_neg_integer
  def bytes(term), do: outside(term, @word * :erts_debug.flat_size(term))

  # Adds what does not lie in the term's own words.
  defp outside([head | tail], bytes), do: outside(tail, outside(head, bytes))

  defp outside(tuple, bytes) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> outside(bytes)

  defp outside(%Backend{device: device, ref: ref}, bytes) when device != :host,
    do: bytes + Native.nbytes(ref)

  defp outside(%{} = map, bytes), do: map |> :maps.to_list() |> outside(bytes)

  defp outside(binary, bytes) when is_binary(binary) and byte_size(binary) > 64,
    do: bytes + :binary.referenced_byte_size(binary)

  defp outside(fun, bytes) when is_function(fun) do
    case :erlang.fun_info(fun, :env) do
      {:env, env} when is_list(env) -> outside(env, bytes)
      _external -> bytes
    end
  end

  defp outside(_other, bytes), do: bytes
end
