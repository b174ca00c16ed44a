defmodule Emily.Lower.Conv do
  @moduledoc false
  # Convolution. MLX takes channels last, floats other than f64, up to three spatial axes, and
  # groups with one or two of these; complex numbers and other groups are composed.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]
  alias Emily.Lower.Shape

  def names, do: [:conv]

  def lower(:conv, %{type: type}, [tensor, kernel, opts]) do
    spatial = tuple_size(tensor.shape) - 2
    feature_groups = opts[:feature_group_size]
    batch_groups = opts[:batch_group_size]

    if spatial > 3 or type == {:f, 64} or (feature_groups > 1 and batch_groups > 1) do
      :fallback
    else
      channels_last = [0 | Enum.to_list(2..(spatial + 1))] ++ [1]
      wide = accumulator(type)

      {x, x_dims} = permuted(tensor, wide, opts[:input_permutation], channels_last)
      {w, w_dims} = permuted(kernel, wide, opts[:kernel_permutation], channels_last)
      {x, x_dims, opts} = cut(x, x_dims, opts, dtype(wide))
      {x, x_dims} = batch_to_channels(x, x_dims, batch_groups)

      config = %{
        strides: opts[:strides],
        low: Enum.map(opts[:padding], &elem(&1, 0)),
        high: Enum.map(opts[:padding], &elem(&1, 1)),
        kernel_dilation: opts[:kernel_dilation],
        input_dilation: opts[:input_dilation],
        groups: feature_groups * batch_groups
      }

      result =
        case type do
          {:c, _} -> complex(x, x_dims, w, w_dims, config)
          _ -> grouped(x, x_dims, w, w_dims, config)
        end

      order =
        compose([0, spatial + 1 | Enum.to_list(1..spatial)], invert(opts[:output_permutation]))

      convert(transpose(result, order), wide, type)
    end
  end

  defp permuted(tensor, type, permutation, channels_last) do
    order = compose(permutation, channels_last)
    dims = Enum.map(order, &elem(tensor.shape, &1))
    {transpose(cast(tensor, type), order), dims}
  end

  # First by `first`, then by `second`.
  defp compose(first, second), do: Enum.map(second, &Enum.at(first, &1))

  # As Nx.BinaryBackend reads an output permutation.
  defp invert(permutation) do
    inverse = permutation |> Enum.with_index() |> Enum.sort() |> Enum.map(&elem(&1, 1))
    inverse
  end

  defp transpose(x, order) do
    if order == Enum.sort(order), do: x, else: {:transpose, x, order}
  end

  # Negative padding cuts the dilated input before MLX sees it.
  defp cut(x, dims, opts, dtype) do
    if Enum.all?(opts[:padding], fn {low, high} -> low >= 0 and high >= 0 end) do
      {x, dims, opts}
    else
      spatial =
        Enum.zip_with(opts[:padding], opts[:input_dilation], fn {low, high}, dilation ->
          {low, high, dilation - 1}
        end)

      config = [{0, 0, 0} | spatial] ++ [{0, 0, 0}]

      padded =
        Enum.zip_with(dims, config, fn dim, {low, high, interior} ->
          dim + (dim - 1) * interior + low + high
        end)

      opts =
        Keyword.merge(opts,
          padding: Enum.map(spatial, fn _ -> {0, 0} end),
          input_dilation: Enum.map(spatial, fn _ -> 1 end)
        )

      {Shape.pad(x, dims, config, scalar(0, dtype)), padded, opts}
    end
  end

  # The groups of the batch become groups of channels.
  defp batch_to_channels(x, dims, 1), do: {x, dims}

  defp batch_to_channels(x, [batch | rest], groups) do
    {spatial, [channels]} = Enum.split(rest, -1)
    count = length(spatial)
    each = div(batch, groups)
    split = {:reshape, x, [groups, each] ++ spatial ++ [channels]}
    order = [1] ++ Enum.to_list(2..(count + 1)) ++ [0, count + 2]
    dims = [each] ++ spatial ++ [groups * channels]
    {{:reshape, {:transpose, split, order}, dims}, dims}
  end

  defp complex(x, x_dims, w, w_dims, config) do
    share(x, fn x ->
      share(w, fn w ->
        product = fn a, b -> grouped({a, x}, x_dims, {b, w}, w_dims, config) end
        re = {:subtract, product.(:real, :real), product.(:imag, :imag)}
        im = {:add, product.(:real, :imag), product.(:imag, :real)}
        i = Emily.Expr.scalar(Complex.new(0.0, 1.0), :c64)
        {:add, {:astype, re, :c64}, {:multiply, {:astype, im, :c64}, i}}
      end)
    end)
  end

  defp grouped(x, _x_dims, w, _w_dims, %{groups: 1} = config), do: conv(x, w, config)

  defp grouped(x, x_dims, w, _w_dims, config) when length(x_dims) <= 4, do: conv(x, w, config)

  defp grouped(x, x_dims, w, w_dims, %{groups: groups} = config) do
    share(x, fn x ->
      share(w, fn w ->
        parts =
          for group <- 0..(groups - 1) do
            conv(
              part(x, x_dims, length(x_dims) - 1, group, groups),
              part(w, w_dims, 0, group, groups),
              %{config | groups: 1}
            )
          end

        {:concatenate, parts, -1}
      end)
    end)
  end

  defp part(x, dims, axis, group, groups) do
    size = div(Enum.at(dims, axis), groups)
    starts = dims |> Enum.map(fn _ -> 0 end) |> List.replace_at(axis, group * size)
    stops = List.replace_at(dims, axis, (group + 1) * size)
    {:slice, x, starts, stops, Enum.map(dims, fn _ -> 1 end)}
  end

  defp conv(x, w, c) do
    {:conv, x, w, c.strides, c.low, c.high, c.kernel_dilation, c.input_dilation, c.groups, false}
  end
end
