defmodule Emily.Lower.Fast do
  @moduledoc false
  # The fused kernels of Emily.Fast as expressions. Shapes and types have been checked by
  # Emily.Fast; what is left is what MLX wants otherwise than Nx.

  alias Emily.Fast.{Attention, LayerNorm, RMSNorm, RoPE}
  alias Emily.Lower

  @doc "The expression of a kernel, nil for a struct that is none."
  def block(%RMSNorm{eps: eps}, _out, [x, weight]),
    do: {:rms_norm, Lower.value(x), cast(weight, x.type), eps}

  def block(%LayerNorm{eps: eps}, _out, [x, weight, bias]),
    do: {:layer_norm, Lower.value(x), cast(weight, x.type), cast(bias, x.type), eps}

  def block(%RoPE{} = kernel, _out, [x, offset | freqs]) do
    {:rope, Lower.value(x), kernel.dims, kernel.traditional, kernel.base, kernel.scale,
     cast(offset, {:s, 32}), periods(freqs)}
  end

  def block(%Attention{} = kernel, _out, [q, k, v | extras]) do
    {mask, sinks} = Attention.extras(kernel, extras)

    {:attention, Lower.value(q), cast(k, q.type), cast(v, q.type), kernel.scale, mask(kernel, mask, q.type),
     sinks && cast(sinks, q.type)}
  end

  def block(_struct, _out, _args), do: nil

  # MLX divides by its table where the inverse frequencies multiply.
  defp periods([]), do: nil
  defp periods([freqs]), do: {:divide, {:full, [], 1.0, :f32}, Lower.value(freqs)}

  defp mask(%{causal: true}, nil, _type), do: :causal
  defp mask(_kernel, nil, _type), do: nil

  # A mask of another type may hold values beyond q's type, and in f16 the least number plus a score
  # is beyond it too. They must not become infinite: a row of infinities alone gives NaN, which
  # spreads. Half of the range hides a key as well as all of it.
  defp mask(_kernel, mask, type) do
    if fits?(mask.type, type) do
      cast(mask, type)
    else
      wide = if float?(mask), do: mask.type, else: {:f, 32}
      limit = half_range(type)
      number = fn value -> {:full, [], value, dtype(wide)} end

      mask
      |> cast(wide)
      |> then(&{:clip, &1, number.(-limit), number.(limit)})
      |> then(&if(wide == type, do: &1, else: {:astype, &1, dtype(type)}))
    end
  end

  defp fits?({kind, 8}, _type) when kind in [:s, :u], do: true
  defp fits?(_mask, {:f, 16}), do: false
  defp fits?(type, type), do: true
  defp fits?({kind, _}, _type) when kind in [:s, :u], do: true
  defp fits?({_, 16}, _type), do: true
  defp fits?(_mask, {:f, 64}), do: true
  defp fits?(_mask, _type), do: false

  defp float?(%{type: {kind, _}}), do: kind in [:f, :bf]

  defp half_range({:f, 16}), do: 32_752.0
  defp half_range({:bf, 16}), do: 1.69e38
  defp half_range({:f, 32}), do: 1.7e38

  defp cast(%{type: type} = tensor, type), do: Lower.value(tensor)
  defp cast(tensor, type), do: {:astype, Lower.value(tensor), dtype(type)}

  defp dtype({:f, 16}), do: :f16
  defp dtype({:bf, 16}), do: :bf16
  defp dtype({:f, 32}), do: :f32
  defp dtype({:f, 64}), do: :f64
  defp dtype({:s, 32}), do: :s32
end
