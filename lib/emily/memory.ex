defmodule Emily.Memory do
  @moduledoc """
  MLX's memory, in bytes: what it takes, and how much it may take.

  The figures are those of the whole VM, of all its devices together: MLX has one allocator. What a card has in all, and what
  is free of it, says `Emily.Native.device_info/1`. With several cards in use, what is freed goes back to CUDA's pools, which
  keep it; `:cache` is 0 then, `clear_cache/0` empties the pools, the limit is that of all cards,
  and the cache's limit is 0: with another one a card's memory would be handed to the other. `Emily.Telemetry.memory_stats/0` reports them. An array's memory is freed when the last
  tensor that refers to it has been collected as garbage.
  """

  alias Emily.Native

  @doc """
  The memory: `:active` in arrays, `:peak` the most that was active, and `:cache` freed and kept for the next arrays.

      iex> x = Emily.from_binary(<<0::1_000_000-unit(8)>>, [1_000_000], :u8)
      iex> %{active: active, peak: peak, cache: cache} = Emily.Memory.stats()
      iex> {active >= 1_000_000, peak >= active, cache >= 0, Emily.shape(x)}
      {true, true, true, [1_000_000]}
  """
  @spec stats() :: %{
          active: non_neg_integer,
          peak: non_neg_integer,
          cache: non_neg_integer
        }
  def stats, do: Map.delete(Native.memory(), :limit)

  @doc """
  Sets the peak back to what is active now.

      iex> Emily.Memory.reset_peak()
      :ok
  """
  @spec reset_peak() :: :ok
  def reset_peak, do: Native.reset_peak_memory()

  @doc """
  Gives the freed bytes that are kept back to the system.

  The four loops that were recorded last are kept with the tensors that their turns read, weights among them, as long as the
  compiled function is. They are dropped too.

      iex> Emily.Memory.clear_cache()
      :ok
  """
  @spec clear_cache() :: :ok
  def clear_cache, do: Native.clear_cache()

  @doc """
  Sets how many bytes may be active before allocations wait for arrays to be freed. Answers the limit before.

      iex> before = Emily.Memory.set_limit(1_000_000_000)
      iex> Emily.Memory.set_limit(before)
      1_000_000_000
  """
  @spec set_limit(non_neg_integer) :: non_neg_integer
  def set_limit(bytes), do: bytes |> check("set_limit/1") |> Native.set_memory_limit()

  @doc """
  Sets how many freed bytes are kept for the next arrays. Answers the limit before.

  Of a GPU's memory MLX keeps what is freed. On a CPU under Linux arrays of 32 MiB and more are kept for the next ones of their size,
  256 MiB in all, and at most a 32nd part of the memory, unless it is set; a large array of another size, and one for which memory is short, have
  them given back. What is smaller the C library keeps, up to 64 MiB, whatever the limit.

      iex> before = Emily.Memory.set_cache_limit(0)
      iex> Emily.Memory.set_cache_limit(before)
      0
  """
  @spec set_cache_limit(non_neg_integer) :: non_neg_integer
  def set_cache_limit(bytes), do: bytes |> check("set_cache_limit/1") |> Native.set_cache_limit()

  defp check(bytes, _function) when bytes in 0..0x7FFFFFFFFFFFFFFF, do: bytes

  defp check(other, function) do
    raise ArgumentError,
          "Emily.Memory.#{function} expects bytes, an integer from 0 to 2^63-1, got: #{inspect(other, limit: 10)}"
  end
end
