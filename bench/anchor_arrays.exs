defmodule Bench.AnchorArrays do
  @moduledoc false
  # The figures of bench/run --anchors without a model; those of anchors.py have the same keys.

  import Nx.Defn
  alias Bench.Models

  @rows {1000, 10_000}
  @million {1_000_000}
  @many {10_000_000}
  @ms {"ms", 1.0e6}

  def figures do
    small() ++ reductions() ++ chains() ++ selection() ++ products() ++ convolutions()
  end

  defp small do
    add = figure("add", "`add` of two `{8}`, evaluated", &Nx.add/2, [{8}, {8}], [:xla], 2)
    [%{add | unit: {"us", 1.0e3}} |> Map.put(:calls, 100)]
  end

  defp reductions do
    read = {:bytes, 4.0e7}

    [
      figure(
        "sum rows",
        "sums of the rows of `{1000, 10000}`",
        &Nx.sum(&1, axes: [1]),
        [@rows],
        [:xla, :numpy],
        0.8,
        read
      ),
      figure(
        "sum columns",
        "sums of its columns",
        &Nx.sum(&1, axes: [0]),
        [@rows],
        [:xla, :numpy],
        0.8,
        read
      ),
      figure("mean", "mean of 1e7", &Nx.mean/1, [@many], [:xla, :numpy], 0.8, read),
      figure(
        "variance",
        "variance of the rows of `{1000, 10000}`",
        &Nx.variance(&1, axes: [1]),
        [@rows],
        [:xla, :numpy],
        0.8,
        read
      ),
      figure("softmax", "softmax of its rows", &softmax/1, [@rows], [:xla], 0.8, {:bytes, 8.0e7})
    ]
  end

  defp chains do
    walk = {:bytes, 8.0e7}

    [
      figure(
        "chain functions",
        "ten operations on 1e7, with `tanh`, `exp` and `sin`",
        &functions/1,
        [@many],
        [:xla],
        0.7,
        walk
      ),
      figure("chain cheap", "ten cheap operations on 1e7", &cheap/1, [@many], [:xla], 0.7, walk),
      figure(
        "cumulative sum",
        "cumulative sum of 1e7",
        &Nx.cumulative_sum/1,
        [@many],
        [:xla, :numpy],
        0.8,
        walk
      )
    ]
  end

  defp selection do
    engines = [:xla, :numpy]

    [
      figure("sort", "sort of 1e6", &Nx.sort/1, [@million], engines, 0.8),
      figure("argsort", "argsort of 1e6", &Nx.argsort/1, [@million], engines, 0.8),
      figure("top_k", "top_k 10 of 1e6", &elem(Nx.top_k(&1, k: 10), 0), [@million], engines, 0.8),
      figure("median", "median of 1e6", &Nx.median/1, [@million], engines, 0.8)
    ]
  end

  defp products do
    squares =
      for size <- [256, 1024, 2048] do
        figure(
          "product #{size}",
          "product of `{#{size}, #{size}}`",
          &Nx.dot/2,
          [{size, size}, {size, size}],
          [:xla, :numpy],
          1.0,
          {
            :operations,
            2.0 * size ** 3
          }
        )
      end

    vector =
      figure(
        "vector",
        "`{1, 4096}` by `{4096, 11008}`",
        &Nx.dot/2,
        [{1, 4096}, {4096, 11_008}],
        [:xla, :numpy],
        1.0,
        {
          :bytes,
          4.0 * 4096 * 11_008
        }
      )

    for figure <- squares ++ [vector], do: Map.put(figure, :busy, true)
  end

  defp convolutions do
    for {key, label, options, image, kernel, places, terms} <- [
          {"conv 3x3", "convolution of `{8, 64, 56, 56}`, 3 x 3", [], {8, 64, 56, 56},
           {64, 64, 3, 3}, 56 * 56, 64 * 9},
          {"conv 7x7", "of `{8, 3, 224, 224}`, 7 x 7 in steps of 2", [strides: 2],
           {8, 3, 224, 224}, {64, 3, 7, 7}, 112 * 112, 3 * 49},
          {"conv depthwise", "of `{8, 64, 56, 56}`, 3 x 3, each channel by itself",
           [feature_group_size: 64], {8, 64, 56, 56}, {64, 1, 3, 3}, 56 * 56, 9}
        ] do
      convolve = &Nx.conv(&1, &2, [padding: :same] ++ options)

      figure(
        key,
        label,
        convolve,
        [image, kernel],
        [:xla],
        0.7,
        {:operations, 2.0 * 8 * 64 * places * terms}
      )
    end
  end

  defnp softmax(m) do
    e = Nx.exp(m - Nx.reduce_max(m, axes: [1], keep_axes: true))
    e / Nx.sum(e, axes: [1], keep_axes: true)
  end

  defnp functions(x) do
    Nx.tanh(Nx.max(Nx.exp(-x * x) * 0.5 + Nx.sin(x) * x, 0.1) - 0.3) / (1 + Nx.abs(x))
  end

  defnp cheap(x) do
    Nx.select(x > 0.5, x * 2.0 + 1.0, x - 3.0) * 0.25 + x
  end

  defp figure(key, label, fun, shapes, engines, most, floor \\ nil) do
    make = fn ->
      arguments = for {shape, at} <- Enum.with_index(shapes), do: uniform(at, shape)
      compiled = Models.compile(fun, arguments)
      fn -> Models.eval(apply(compiled, arguments)) end
    end

    %{
      key: key,
      label: label,
      make: make,
      unit: @ms,
      collect: true,
      engines: engines,
      most: most,
      floor: floor
    }
  end

  defp uniform(key, shape) do
    {tensor, _} = Nx.Random.uniform(Nx.Random.key(key), 0.0, 1.0, shape: shape, type: :f32)
    Models.eval(tensor)
    tensor
  end
end
