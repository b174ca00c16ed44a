defmodule Emily.Compiler.RowsTest do
  # What Nx composes of totals along the last axes, with its gradients: compiled into programs over rows, evaluated
  # operation by operation, and on Nx.BinaryBackend.
  use Emily.CompilerCase, async: true

  import Nx.Defn

  defn softmax(x) do
    e = Nx.exp(x - Nx.reduce_max(x, axes: [-1], keep_axes: true))
    e / Nx.sum(e, axes: [-1], keep_axes: true)
  end

  defn log_softmax(x) do
    x = x - stop_grad(Nx.reduce_max(x, axes: [-1], keep_axes: true))
    x - Nx.log(Nx.sum(Nx.exp(x), axes: [-1], keep_axes: true))
  end

  defn layer_norm(x) do
    mean = Nx.mean(x, axes: [-1], keep_axes: true)
    variance = Nx.variance(x, axes: [-1], keep_axes: true)
    (x - mean) * Nx.rsqrt(variance + 1.0e-3)
  end

  defn scaled(x) do
    least = Nx.reduce_min(x, axes: [-1], keep_axes: true)
    (x - least) / (Nx.reduce_max(x, axes: [-1], keep_axes: true) - least)
  end

  defn variance(x), do: Nx.variance(x, axes: [-1])
  defn deviation(x), do: Nx.standard_deviation(x, axes: [-1], keep_axes: true) + x
  defn softmax_gradient(x), do: grad(x, &weighted(softmax(&1)))
  defn log_softmax_gradient(x), do: grad(x, &weighted(log_softmax(&1)))
  defn layer_norm_gradient(x), do: grad(x, &weighted(layer_norm(&1)))
  defnp weighted(y), do: Nx.sum(y * Nx.iota(Nx.shape(y), axis: -1))

  # Totals of rows that are as many as their elements, along the other axis.
  defn crossed(x), do: x - Nx.sum(x, axes: [-1]) * Nx.variance(x, axes: [0])

  @functions [
    softmax: &__MODULE__.softmax/1,
    log_softmax: &__MODULE__.log_softmax/1,
    layer_norm: &__MODULE__.layer_norm/1,
    scaled: &__MODULE__.scaled/1,
    variance: &__MODULE__.variance/1,
    deviation: &__MODULE__.deviation/1,
    softmax_gradient: &__MODULE__.softmax_gradient/1,
    log_softmax_gradient: &__MODULE__.log_softmax_gradient/1,
    layer_norm_gradient: &__MODULE__.layer_norm_gradient/1
  ]

  @shapes [{4, 3}, {2, 3, 17}, {70, 9}, {3, 1025}, {130}]

  defp rows(shape) do
    {x, _} = Nx.Random.normal(Nx.Random.key(3), 0.0, 2.0, shape: shape)
    x
  end

  for {name, fun} <- @functions do
    test "#{name}" do
      for shape <- @shapes do
        x = rows(shape)
        actual = assert_compiled(unquote(fun), [x], tolerance: 1.0e-4)

        evaluated =
          Nx.Defn.jit_apply(unquote(fun), [on_emily(x)], compiler: Nx.Defn.Evaluator)

        # A square is MLX's power on a GPU, where the exponent is data, and has other last digits.
        if f64?(), do: assert(Nx.to_binary(actual) == Nx.to_binary(evaluated), inspect(shape))
      end
    end
  end

  test "totals that lie along another axis" do
    assert_compiled(&crossed/1, [rows({9, 9})], tolerance: 1.0e-4)
  end
end
