# The most memory that a step of training takes, beside what it must: parameters, Adam's two moments, and activations.
# `mix run bench/training_memory.exs`, and with EMILY_NX=main, where the state is given away.
Nx.global_default_backend({Emily.Backend, device: :cpu})

defmodule Bench.TrainingMemory do
  @moduledoc false
  import Nx.Defn

  @sizes [{1024, 1024}, {1024, 1024}, {1024, 1024}, {1024, 10}]
  @batch 256

  def state do
    weights =
      for {shape, at} <- Enum.with_index(@sizes) do
        {weight, _} = Nx.Random.normal(Nx.Random.key(at), 0.0, 0.03, shape: shape)
        weight
      end

    zeros = Enum.map(weights, &Nx.broadcast(0.0, &1.shape))
    {List.to_tuple(weights), List.to_tuple(zeros), List.to_tuple(zeros)}
  end

  def batch do
    {x, _} = Nx.Random.uniform(Nx.Random.key(9), shape: {@batch, 1024})
    {x, Nx.equal(Nx.remainder(Nx.iota({@batch, 1}), 10), Nx.iota({1, 10}))}
  end

  # What the gradient needs: the input of each layer.
  def activations, do: Enum.sum(for {inputs, _} <- @sizes, do: @batch * inputs * 4)

  defn step({weights, first, second}, x, y) do
    gradients =
      grad(weights, fn {a, b, c, d} ->
        logits = x |> layer(a) |> layer(b) |> layer(c) |> Nx.dot(d)

        -Nx.mean(
          Nx.sum(y * (logits - Nx.logsumexp(logits, axes: [1], keep_axes: true)), axes: [1])
        )
      end)

    first = zip(first, gradients, fn m, g -> 0.9 * m + 0.1 * g end)
    second = zip(second, gradients, fn v, g -> 0.999 * v + 0.001 * g * g end)
    updates = zip(first, second, fn m, v -> 0.001 * m / (Nx.sqrt(v) + 1.0e-8) end)
    {zip(weights, updates, fn w, u -> w - u end), first, second}
  end

  defnp layer(x, w), do: Nx.max(Nx.dot(x, w), 0)

  deftransformp zip(a, b, fun) do
    Enum.zip_with(Tuple.to_list(a), Tuple.to_list(b), fun) |> List.to_tuple()
  end
end

alias Bench.TrainingMemory

eval = fn state ->
  for {_, tensors} <- Enum.with_index(Tuple.to_list(state), &{&2, Tuple.to_list(&1)}),
      %{data: %{ref: ref}} <- tensors,
      do: Emily.Native.eval(ref)

  state
end

donate =
  if function_exported?(Nx, :donatable, 1),
    do: fn state -> apply(Nx, :donatable, [state]) end,
    else: & &1

{x, y} = TrainingMemory.batch()
step = Nx.Defn.jit(&TrainingMemory.step/3, compiler: Emily.Compiler)
run = fn state -> state |> donate.() |> step.(x, y) |> eval.() end

state = eval.(TrainingMemory.state())
state = Enum.reduce(1..3, state, fn _, state -> run.(state) end)
:erlang.garbage_collect()
Emily.Memory.clear_cache()
Emily.Memory.reset_peak()
before = Emily.Memory.stats().active

state =
  Enum.reduce(1..10, state, fn _, state ->
    state = run.(state)
    :erlang.garbage_collect()
    state
  end)

peak = Emily.Memory.stats().peak

parameters = Enum.sum(for w <- Tuple.to_list(elem(state, 0)), do: Nx.byte_size(w))
must = 3 * parameters + TrainingMemory.activations()
mib = &Float.round(&1 / 1_048_576, 1)

IO.puts("Nx #{Application.spec(:nx, :vsn)}: peak #{mib.(peak)} MiB, #{mib.(before)} before")

IO.puts(
  "parameters #{mib.(parameters)}, Adam #{mib.(2 * parameters)}, activations #{mib.(TrainingMemory.activations())}"
)

IO.puts("peak / (parameters + optimiser + activations) = #{Float.round(peak / must, 2)}")
IO.puts("with gradients beside: #{Float.round(peak / (must + parameters), 2)}")
