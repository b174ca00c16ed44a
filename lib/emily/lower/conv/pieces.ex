defmodule Emily.Lower.Conv.Pieces do
  @moduledoc false
  # A convolution in pieces, where its padded input or the patches of its input would take much memory: on a GPU, and
  # on a CPU where no kernels are wanted. On each
  # spatial axis an output sees an entry through a tap where
  #
  #     output * stride + tap * kernel_dilation == low_padding + entry * input_dilation
  #
  # So outputs, taps and entries are progressions of positions. What of them never meets the others is left out,
  # common factors of their steps are, and what is still too large is halved: outputs are concatenated, taps and
  # entries added.

  import Emily.Expr, only: [share: 2, scalar: 2]
  alias Emily.Lower.Shape

  # The bytes that padding and patches may take unless `:most` says otherwise. MLX has up to twenty pieces on their
  # way at once, so that each takes a part of that; a convolution is halved so often at most.
  @most 1_073_741_824
  @parts 32
  @halvings 10

  @doc """
  `direct.(x, dims, w, w_dims, config)` on the whole, or on pieces that are put together.

  `dims` begin with the batch, `w_dims` with the output channels, and the spatial axes of both begin at `first`:
  behind them, or before them, are the channels. `bytes` are those of an element, and `unfolds` says whether
  `direct` copies the patches.
  """
  def conv(x, dims, w, w_dims, config, opts, direct) do
    first = opts[:first]
    spatial = length(dims) - 2
    channels = if first == 1, do: List.last(dims), else: Enum.at(dims, 1)

    whole = %{
      batch: progression(0, 1, hd(dims)),
      axes: axes(Enum.slice(dims, first, spatial), Enum.slice(w_dims, first, spatial), config)
    }

    context = %{
      first: first,
      dims: dims,
      w_dims: w_dims,
      config: config,
      direct: direct,
      zero: scalar(0, opts[:dtype]),
      element: channels * opts[:bytes],
      unfolds: opts[:unfolds],
      most: opts[:most] || @most
    }

    with true <- plain_cost(whole, context) > context.most,
         {:ok, plan} <- plan(whole, context, @halvings) do
      share(x, fn x -> share(w, fn w -> build(plan, x, w, context) end) end)
    else
      _ -> direct.(x, dims, w, w_dims, config)
    end
  end

  defp axes(sizes, widths, config) do
    [sizes, widths, config.strides, config.padding, config.kernel_dilation, config.input_dilation]
    |> Enum.zip_with(fn [size, width, stride, {low, high}, kernel_dilation, input_dilation] ->
      padded = low + (size - 1) * input_dilation + 1 + high
      outputs = div(padded - ((width - 1) * kernel_dilation + 1), stride) + 1

      %{
        output: progression(0, stride, outputs),
        tap: progression(0, kernel_dilation, width),
        entry: progression(low, input_dilation, size)
      }
    end)
  end

  ## Progressions: positions `at`, `at + step`..., of the elements `from`, `from + by`...

  defp progression(at, step, count), do: %{at: at, step: step, count: count, from: 0, by: 1}

  defp last(%{at: at, step: step, count: count}), do: at + (count - 1) * step

  defp span(p), do: last(p) - p.at

  # Where there is but one position its step means nothing.
  defp step(%{count: 1}), do: 0
  defp step(%{step: step}), do: step

  defp drop(p, 0), do: p
  defp drop(p, n), do: %{p | at: p.at + n * p.step, from: p.from + n * p.by, count: p.count - n}

  defp take(p, n), do: %{p | count: n}

  defp every(p, n) do
    %{p | step: p.step * n, by: p.by * n, count: div(p.count + n - 1, n)}
  end

  # The positions from `low` to `high`.
  defp within(p, low, high) do
    skipped = max(ceil_div(low - p.at, p.step), 0)
    end_ = min(Integer.floor_div(high - p.at, p.step) + 1, p.count)
    if skipped < end_, do: p |> take(end_) |> drop(skipped), else: throw(:nothing)
  end

  # The positions that leave `rest` when they are divided by `unit`, or that are `rest` where `unit` is 0.
  defp congruent(p, rest, 0), do: within(p, rest, rest)

  defp congruent(p, rest, unit) do
    # They repeat after so many.
    period = div(unit, Integer.gcd(p.step, unit))
    meets = fn n -> rem(p.at + n * p.step - rest, unit) == 0 end

    case Enum.find(0..(min(p.count, period) - 1), meets) do
      nil -> throw(:nothing)
      n -> p |> drop(n) |> every(period)
    end
  end

  defp halves(p) do
    half = div(p.count, 2)
    {take(p, half), drop(p, half)}
  end

  defp ceil_div(a, b), do: -Integer.floor_div(-a, b)

  ## Planning

  # What is left of a piece when all is gone that never meets the others; throws `:nothing` where nothing is.
  defp trimmed(%{axes: axes} = piece), do: %{piece | axes: Enum.map(axes, &trim/1)}

  defp trim(%{output: output, tap: tap, entry: entry}) do
    output = within(output, entry.at - last(tap), last(entry) - tap.at)
    tap = within(tap, entry.at - last(output), last(entry) - output.at)
    tap = congruent(tap, entry.at - output.at, Integer.gcd(step(output), step(entry)))
    entry = congruent(entry, output.at + tap.at, Integer.gcd(step(output), step(tap)))
    entry = within(entry, output.at + tap.at, last(output) + last(tap))
    %{output: output, tap: tap, entry: entry}
  end

  defp unit(%{output: output, tap: tap, entry: entry}) do
    case step(output) |> Integer.gcd(step(tap)) |> Integer.gcd(step(entry)) do
      0 -> 1
      unit -> unit
    end
  end

  defp cost(piece, context) do
    piece |> trimmed() |> plain_cost(context)
  catch
    :nothing -> 0
  end

  defp plain_cost(%{batch: batch, axes: axes}, context) do
    padded =
      for axis <- axes, do: div(span(axis.output) + span(axis.tap), unit(axis)) + 1

    patches = for axis <- axes, do: axis.output.count * axis.tap.count
    patches = if context.unfolds, do: Enum.product(patches), else: 0
    batch.count * context.element * (Enum.product(padded) + patches)
  end

  defp plan(piece, context, halvings) do
    {:ok, planned(piece, context, halvings)}
  catch
    :too_large -> :too_large
  end

  defp planned(piece, context, halvings) do
    left = trimmed(piece)
    cost = plain_cost(left, context)
    most = if halvings == @halvings, do: context.most, else: div(context.most, @parts)

    cond do
      cost <= most -> {:piece, piece, left}
      halvings == 0 -> throw(:too_large)
      true -> halved(piece, left, cost, context, halvings)
    end
  catch
    :nothing -> {:zeros, piece}
  end

  defp halved(piece, left, cost, context, halvings) do
    worst = fn {_, one, other} -> max(cost(one, context), cost(other, context)) end

    with [_ | _] = splits <- splits(left),
         {how, one, other} = split = Enum.min_by(splits, worst),
         true <- worst.(split) < cost do
      parts = for part <- [one, other], do: planned(part, context, halvings - 1)
      {:whole, piece, left, {how, parts}}
    else
      _ -> throw(:too_large)
    end
  end

  # The ways to halve a piece: what its halves become, and both.
  defp splits(%{batch: batch, axes: axes} = piece) do
    of_batch =
      for %{count: count} when count > 1 <- [batch] do
        {one, other} = halves(batch)
        {{:concatenate, 0}, %{piece | batch: one}, %{piece | batch: other}}
      end

    of_axes =
      for kind <- [:output, :tap, :entry],
          {%{^kind => %{count: count} = p} = axis, at} when count > 1 <- Enum.with_index(axes) do
        {one, other} = halves(p)
        how = if kind == :output, do: {:concatenate, {:spatial, at}}, else: :add
        with_half = &%{piece | axes: List.replace_at(axes, at, %{axis | kind => &1})}
        {how, with_half.(one), with_half.(other)}
      end

    of_batch ++ of_axes
  end

  ## Building

  defp build({:zeros, piece}, _x, _w, context),
    do: {:broadcast_to, context.zero, result_dims(piece, context)}

  defp build({:piece, piece, left}, x, w, %{first: first} = context) do
    {x, dims} = part(x, context.dims, [{0, left.batch} | placed(left, :entry, first)])
    {w, w_dims} = part(w, context.w_dims, placed(left, :tap, first))

    axes =
      for %{output: output, tap: tap, entry: entry} = axis <- left.axes do
        unit = unit(axis)
        low = div(entry.at - output.at - tap.at, unit)
        high = div(last(output) + last(tap) - last(entry), unit)

        {max(div(step(output), unit), 1), {low, high}, max(div(step(tap), unit), 1),
         max(div(step(entry), unit), 1)}
      end

    config = %{
      context.config
      | strides: Enum.map(axes, &elem(&1, 0)),
        padding: Enum.map(axes, &elem(&1, 1)),
        kernel_dilation: Enum.map(axes, &elem(&1, 2)),
        input_dilation: Enum.map(axes, &elem(&1, 3))
    }

    x |> context.direct.(dims, w, w_dims, config) |> spread(piece, left, context)
  end

  defp build({:whole, piece, left, {how, parts}}, x, w, context) do
    parts = for part <- parts, do: build(part, x, w, context)

    together =
      case how do
        :add -> List.to_tuple([:add | parts])
        {:concatenate, {:spatial, at}} -> {:concatenate, parts, context.first + at}
        {:concatenate, axis} -> {:concatenate, parts, axis}
      end

    spread(together, piece, left, context)
  end

  # The outputs that were left out are zeros.
  defp spread(result, piece, left, context) do
    pads =
      Enum.zip_with(piece.axes, left.axes, fn %{output: all}, %{output: some} ->
        low = some.from - all.from
        {low, all.count - some.count - low, 0}
      end)

    pads = List.duplicate({0, 0, 0}, context.first) ++ pads
    dims = result_dims(left, context)
    pads = pads ++ List.duplicate({0, 0, 0}, length(dims) - length(pads))

    if Enum.all?(pads, &(&1 == {0, 0, 0})),
      do: result,
      else: Shape.pad(result, dims, pads, context.zero)
  end

  defp result_dims(%{batch: batch, axes: axes}, %{first: first, w_dims: [outputs | _]}) do
    sizes = for axis <- axes, do: axis.output.count
    if first == 1, do: [batch.count | sizes] ++ [outputs], else: [batch.count, outputs | sizes]
  end

  defp placed(piece, kind, first) do
    for {axis, at} <- Enum.with_index(piece.axes, first), do: {at, axis[kind]}
  end

  # The elements of progressions on their axes.
  defp part(x, dims, progressions) do
    whole = fn size -> %{from: 0, by: 1, count: size} end
    on = Map.new(progressions)
    chosen = for {size, axis} <- Enum.with_index(dims), do: on[axis] || whole.(size)
    counts = for p <- chosen, do: p.count

    if counts == dims do
      {x, dims}
    else
      stops = for p <- chosen, do: p.from + (p.count - 1) * p.by + 1
      starts = for p <- chosen, do: p.from
      strides = for p <- chosen, do: if(p.count == 1, do: 1, else: p.by)
      {{:slice, x, starts, stops, strides}, counts}
    end
  end
end
