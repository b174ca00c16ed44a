defmodule Attack.Calls.Functions do
  @moduledoc false
  # Calls of the binding's functions, as `__info__` lists them, and of the stubs behind them, with any terms.

  import Attack.Draw
  alias Attack.Calls.{Pool, Terms}
  alias Emily.Native
  alias Emily.Native.{Nif, Program}

  # `load` is the module's own; a structure's functions are Elixir's. What is no part of the documentation and takes functions,
  # what a stub answered, or names of Emily's own is reached by others.
  @left_out [
    load: 0,
    built: 1,
    to_binary: 3,
    settle: 1,
    has_grown: 2,
    __struct__: 0,
    __struct__: 1
  ]

  @doc "A module, a function and arguments."
  def draw(pool) do
    # What is given away is gone for whoever has the handle, and the pool's are for the next case, too.
    pool =
      Map.new(pool, fn {size, arrays} ->
        {size, Enum.flat_map(arrays, &Native.run([&1], :cpu))}
      end)

    module = pick([Native, Native, Nif, Program, Emily, Emily.Memory, Emily.Stream])
    {name, arity} = pick(module.__info__(:functions) -- @left_out)
    {module, name, for(_ <- 1..arity//1, do: argument(pool))}
  end

  defp argument(pool) do
    case integer(1, 16) do
      n when n <= 5 -> pick(pool.small)
      6 -> pick(Pool.types())
      7 -> pick([:cpu, :cpu, :gpu, {:cpu, 0}, {:gpu, 1}, {:gpu, 65_536}, nil])
      8 -> Pool.shape()
      9 -> List.to_tuple(Pool.shape())
      10 -> :rand.bytes(integer(0, 64))
      11 -> pick([0, 1, 2, 1.0, 0.5])
      12 -> options(pool)
      13 -> {[0], [], [{pick([:abs, :exp, :nope]), {:var, 0}}]}
      14 -> [{pick([:abs, :exp, :sum]), pick(pool.small)}]
      15 -> pick([make_ref(), pick(pool.huge)])
      16 -> Terms.any(pool.small)
    end
  end

  defp options(pool) do
    for name <-
          Enum.take_random(
            [:dims, :scale, :base, :traditional, :mask, :sinks, :device, :fuse, :results, :nope],
            integer(0, 4)
          ),
        do:
          {name,
           pick([4, 1.0, nil, true, :causal, :cpu, pick(pool.small), Terms.any(pool.small)])}
  end

  @doc "Sets back what calls may have set."
  def restore(%{limit: limit, cache: cache, threads: threads}) do
    Native.set_memory_limit(limit)
    Native.set_cache_limit(cache)
    Native.set_threads(threads)
  end

  @doc "What `restore/1` sets."
  def settings do
    cache = Native.set_cache_limit(0)
    Native.set_cache_limit(cache)
    %{limit: Native.memory().limit, cache: cache, threads: Native.threads()}
  end

  @doc "Whether a call sets what holds for all."
  def sets?(name), do: name in [:set_memory_limit, :set_cache_limit, :set_threads, :set_limit]
end
