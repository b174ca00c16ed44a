defmodule Attack.Work do
  @moduledoc false
  # Work of four kinds, whose results are known by arithmetic: one operation after the other, a compiled program with a
  # loop, one with a hook, and a batch of a serving.

  import Emily.Observe
  import Nx.Defn

  @serving Attack.Work.Serving
  @kinds ~w(eager compiled hooked served)a

  def kinds, do: @kinds

  @doc "Makes Emily the default everywhere, and starts the serving under a supervisor of its own."
  def start do
    {:ok, _} = Application.ensure_all_started([:nx, :emily])
    Nx.global_default_backend(Emily.Backend)
    serving = Nx.Serving.new(&Nx.Defn.jit(fn x -> twice(x) end, &1), compiler: Emily.Compiler)
    options = [serving: serving, name: @serving, batch_size: 8, batch_timeout: 1]
    {:ok, _} = Supervisor.start_link([{Nx.Serving, options}], strategy: :one_for_one)
    :ok
  end

  # A serving takes one shape.
  @served 64

  @doc """
  Does work with a whole number from 1 to 100, for matrices with `size` rows where it is not served; raises where a result
  is wrong.
  """
  def check!(kind, n, size \\ 16) do
    case {result(kind, n, size), expected(kind, n, size)} do
      {same, same} ->
        :ok

      {found, right} ->
        raise "#{kind} of #{n} and #{size}: #{inspect(found)}, not #{inspect(right)}"
    end
  end

  defp result(:eager, n, size) do
    x = Nx.iota({size, size}, type: :s64)

    product =
      Nx.dot(Nx.broadcast(Nx.tensor(1.0), {size, size}), Nx.broadcast(Nx.tensor(n), {size, 1}))

    {x |> Nx.multiply(n) |> Nx.add(1) |> Nx.sum() |> Nx.to_number(),
     Nx.to_number(product[[0, 0]])}
  end

  defp result(:compiled, n, size) do
    jitted = Nx.Defn.jit(&looped/1, compiler: Emily.Compiler)
    {Nx.broadcast(n, {size, size}) |> jitted.() |> Nx.sum() |> Nx.to_number(), nil}
  end

  defp result(:hooked, n, size) do
    me = self()
    ref = make_ref()
    hooks = %{seen: fn x -> send(me, {ref, Nx.to_number(x[0])}) end}
    jitted = Nx.Defn.jit(&hooked/1, compiler: Emily.Compiler, hooks: hooks)
    sum = Nx.broadcast(n, {size}) |> jitted.() |> Nx.sum() |> Nx.to_number()

    receive do
      {^ref, seen} -> {sum, seen}
    after
      60_000 -> {sum, :no_hook}
    end
  end

  defp result(:served, n, _size) do
    batch = Nx.Batch.stack([Nx.broadcast(n, {@served})])
    {@serving |> Nx.Serving.batched_run(batch) |> Nx.sum() |> Nx.to_number(), nil}
  end

  defp expected(:eager, n, size),
    do: {n * div(size * size * (size * size - 1), 2) + size * size, 1.0 * n * size}

  # Five times 2 x + 1.
  defp expected(:compiled, n, size), do: {size * size * (32 * n + 31), nil}
  defp expected(:hooked, n, size), do: {size * (2 * n + 1), 2 * n}
  defp expected(:served, n, _size), do: {@served * (2 * n + 1), nil}

  defn twice(x), do: x * 2 + 1

  defn looped(x) do
    {x, _} =
      while {x, i = 0}, i < 5 do
        {x * 2 + 1, i + 1}
      end

    x
  end

  defn hooked(x), do: observe(x * 2, :seen) + 1
end
