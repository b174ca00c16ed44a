defmodule Emily.Lower.Conv do
  @moduledoc false
  # Convolution. On a CPU it is a kernel of f32 and f64. Elsewhere, and where no kernels are wanted, MLX has it for f32
  # and up to three spatial axes, of which three take no groups; f64, integers beyond f32's exactness and more axes
  # are the product of the input's patches with the kernel. Complex numbers are four convolutions of their parts. With
  # `flip: true`, which the compiler gives, the kernel is read from its end on along the spatial axes.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]
  alias Emily.Lower.{Conv.Pieces, Dot, Shape, Window}
  alias Emily.Native

  def names, do: [:conv]

  def lower(:conv, %{type: type}, [tensor, kernel, opts]) do
    # The groups of the batch become groups of channels. Nx allows one kind of groups at a time.
    config =
      Map.new([flip: false] ++ opts)
      |> Map.put(:groups, opts[:feature_group_size] * opts[:batch_group_size])

    sum = fn x, w -> x |> sum(w, config) |> from_zero(x.type) end

    result =
      cond do
        is_integer_type(tensor.type) and is_integer_type(kernel.type) ->
          integers(tensor, kernel, config, type)

        match?({:c, _}, type) ->
          complex(cast(tensor, type), cast(kernel, type), fn x, w ->
            sum.(with_value(tensor, x, {:f, 32}), with_value(kernel, w, {:f, 32}))
          end)

        true ->
          wide = accumulator(type)
          convert(sum.(cast_tensor(tensor, wide), cast_tensor(kernel, wide)), wide, type)
      end

    transpose(result, invert(opts[:output_permutation]))
  end

  defp with_value(tensor, expr, type),
    do: %{tensor | type: type, data: %{tensor.data | ref: expr}}

  defp cast_tensor(tensor, type), do: with_value(tensor, cast(tensor, type), type)

  # The convolution of two operands of one type, with axes {batch, channels, spatial...}.
  defp sum(x, w, config) do
    cond do
      x.type in [f: 32, f: 64] and Native.kernels() != nil and not on_gpu?(x, w) ->
        kernel(x, w, config)

      config.flip ->
        [_, _ | spatial] = config.kernel_permutation
        sum(x, with_value(w, {:flip, value(w), spatial}, w.type), %{config | flip: false})

      x.type == {:f, 32} and tuple_size(x.shape) <= 5 ->
        native(x, w, config)

      true ->
        patches(x, w, config)
    end
  end

  # Nx sums the products of integers exactly, and rounds the sum to f32.
  defp integers(x, w, config, type) do
    {_, x_bits} = x.type
    {_, w_bits} = w.type
    [_ | terms] = Enum.map(config.kernel_permutation, &elem(w.shape, &1))
    bits = x_bits + w_bits + ceil(:math.log2(max(Enum.product(terms), 1)))
    float = if on_gpu?(x, w), do: {:f, 32}, else: {:f, 64}
    as = fn type -> sum(cast_tensor(x, type), cast_tensor(w, type), config) end

    cond do
      bits <= 24 ->
        convert(as.({:f, 32}), {:f, 32}, type)

      bits <= 53 and float == {:f, 64} ->
        convert(as.({:f, 64}), {:f, 64}, type)

      # Sums wrap in 64 bits; those that would are far from it in floats.
      true ->
        share(as.(float), fn rounded ->
          fits = {:less, {:abs, rounded}, scalar(4.611686018427387904e18, dtype(float))}
          {:where, fits, {:astype, as.({:s, 64}), dtype(type)}, convert(rounded, float, type)}
        end)
    end
  end

  defp on_gpu?(x, w), do: Dot.on_gpu?(x) or Dot.on_gpu?(w)

  defp complex(x, w, conv) do
    share(x, fn x ->
      share(w, fn w ->
        product = fn a, b -> conv.({a, x}, {b, w}) end
        re = {:subtract, product.(:real, :real), product.(:imag, :imag)}
        im = {:add, product.(:real, :imag), product.(:imag, :real)}
        i = scalar(Complex.new(0.0, 1.0), :c64)
        {:add, {:astype, re, :c64}, {:multiply, {:astype, im, :c64}, i}}
      end)
    end)
  end

  ## A CPU's kernel, which needs no patches

  # The result lies in memory as the output's permutation wants it.
  defp kernel(x, w, config) do
    spatial = tuple_size(x.shape) - 2
    first = invert(config.output_permutation) |> Enum.at(1) == 1
    order = if first, do: Enum.to_list(0..(spatial + 1)), else: channels_last(spatial)
    {input, dims} = input(x, config, order)
    {kernel, _} = permuted(value(w), w.shape, compose(config.kernel_permutation, order))
    {input, _, config} = cut(input, dims, config, if(first, do: 2, else: 1), dtype(x.type))
    result = conv(input, kernel, config, first)
    if first, do: result, else: transpose(result, channels_second(spatial))
  end

  defp channels_last(spatial), do: [0 | Enum.to_list(2..(spatial + 1)//1)] ++ [1]
  defp channels_second(spatial), do: [0, spatial + 1 | Enum.to_list(1..spatial//1)]

  ## MLX's own, with the channels last

  defp native(x, w, config) do
    spatial = tuple_size(x.shape) - 2
    last = channels_last(spatial)
    {input, dims} = input(x, config, last)
    {kernel, kernel_dims} = permuted(value(w), w.shape, compose(config.kernel_permutation, last))

    direct = fn x, dims, w, w_dims, config ->
      {x, dims, config} = cut(x, dims, config, 1, :f32)
      grouped(x, dims, w, w_dims, config)
    end

    # MLX copies the patches on a CPU.
    opts = [first: 1, dtype: :f32, bytes: 4, unfolds: not on_gpu?(x, w)]
    result = Pieces.conv(input, dims, kernel, kernel_dims, config, opts, direct)
    transpose(result, channels_second(spatial))
  end

  # Negative padding cuts the dilated input first. The spatial axes begin at `first`.
  defp cut(x, dims, %{padding: padding, input_dilation: dilation} = config, first, dtype) do
    if Enum.all?(padding, fn {low, high} -> low >= 0 and high >= 0 end) do
      {x, dims, config}
    else
      spatial = Enum.zip_with(padding, dilation, fn {low, high}, by -> {low, high, by - 1} end)
      pads = List.duplicate({0, 0, 0}, first) ++ spatial
      pads = pads ++ List.duplicate({0, 0, 0}, length(dims) - length(pads))

      config = %{
        config
        | padding: Enum.map(padding, fn _ -> {0, 0} end),
          input_dilation: Enum.map(padding, fn _ -> 1 end)
      }

      {Shape.pad(x, dims, pads, scalar(0, dtype)), Shape.padded(dims, pads), config}
    end
  end

  defp grouped(x, dims, w, w_dims, %{groups: groups} = config)
       when groups > 1 and length(dims) == 5 do
    share(x, fn x ->
      share(w, fn w ->
        parts =
          for group <- 0..(groups - 1) do
            conv(
              part(x, dims, length(dims) - 1, group, groups),
              part(w, w_dims, 0, group, groups),
              %{config | groups: 1},
              false
            )
          end

        {:concatenate, parts, -1}
      end)
    end)
  end

  defp grouped(x, _dims, w, _w_dims, config), do: conv(x, w, config, false)

  defp part(x, dims, axis, group, groups) do
    size = div(Enum.at(dims, axis), groups)
    starts = dims |> Enum.map(fn _ -> 0 end) |> List.replace_at(axis, group * size)
    stops = List.replace_at(dims, axis, (group + 1) * size)
    {:slice, x, starts, stops, Enum.map(dims, fn _ -> 1 end)}
  end

  defp conv(x, w, %{kernel_dilation: kernel, input_dilation: input} = config, channels_first) do
    {low, high} = Enum.unzip(config.padding)

    {:conv, x, w, config.strides, low, high, kernel, input, config.groups, config.flip,
     channels_first}
  end

  ## Patches: each window of the input as a row

  defp patches(x, w, config) do
    {input, dims} = input(x, config, nil)
    {kernel, kernel_dims} = permuted(value(w), w.shape, config.kernel_permutation)
    on_gpu = on_gpu?(x, w)
    direct = &patches(&1, &2, &3, &4, &5, x.type, on_gpu)
    {_, bits} = x.type
    opts = [first: 2, dtype: dtype(x.type), bytes: div(bits, 8), unfolds: true]
    Pieces.conv(input, dims, kernel, kernel_dims, config, opts, direct)
  end

  defp patches(input, dims, kernel, kernel_dims, %{groups: groups} = config, type, on_gpu) do
    [outputs, channels | widths] = kernel_dims

    spatial =
      Enum.zip_with(config.padding, config.input_dilation, fn {low, high}, by ->
        {low, high, by - 1}
      end)

    pads = [{0, 0, 0}, {0, 0, 0} | spatial]
    input = Shape.pad(input, dims, pads, scalar(0, dtype(type)))

    {view, [batch, _ | sizes]} =
      Window.all_windows(input, Shape.padded(dims, pads), [1, 1 | widths],
        strides: [1, 1 | config.strides],
        window_dilations: [1, 1 | config.kernel_dilation]
      )

    count = Enum.product(sizes)
    inner = channels * Enum.product(widths)
    split = {:reshape, view, [batch, groups, channels, count, Enum.product(widths)]}
    rows = {:reshape, {:transpose, split, [1, 0, 3, 2, 4]}, [groups, batch * count, inner]}
    filters = {:reshape, kernel, [groups, div(outputs, groups), inner]}

    product =
      Dot.product(
        rows,
        {:transpose, filters, [0, 2, 1]},
        [groups, batch * count, inner, div(outputs, groups)],
        type,
        on_gpu
      )

    split = {:reshape, product, [groups, batch, count, div(outputs, groups)]}
    {:reshape, {:transpose, split, [1, 0, 3, 2]}, [batch, outputs | sizes]}
  end

  ## Axes

  # The input as {batch, channels, spatial...}, then in the order `last`.
  defp input(x, %{batch_group_size: 1, input_permutation: order}, last) do
    permuted(value(x), x.shape, compose(order, last))
  end

  defp input(x, %{batch_group_size: groups, input_permutation: order}, last) do
    {x, [batch, channels | spatial]} = permuted(value(x), x.shape, order)
    each = div(batch, groups)
    split = {:reshape, x, [groups, each, channels | spatial]}
    {_, axes} = Enum.split(0..(length(spatial) + 2), 2)
    dims = [each, groups * channels | spatial]
    folded = {:reshape, {:transpose, split, [1, 0 | axes]}, dims}
    permuted(folded, List.to_tuple(dims), last || Enum.to_list(0..(length(dims) - 1)))
  end

  defp permuted(x, shape, order), do: {transpose(x, order), Enum.map(order, &elem(shape, &1))}

  # First by `first`, then by `second`.
  defp compose(first, nil), do: first
  defp compose(first, second), do: Enum.map(second, &Enum.at(first, &1))

  # As Nx.BinaryBackend reads an output permutation.
  defp invert(permutation) do
    permutation |> Enum.with_index() |> Enum.sort() |> Enum.map(&elem(&1, 1))
  end

  defp transpose(x, order) do
    if order == Enum.sort(order), do: x, else: {:transpose, x, order}
  end
end
