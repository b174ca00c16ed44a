defmodule Emily.Lower.Fast do
  @moduledoc false
  # The fused kernels of Emily.Fast as expressions. Shapes and types have been checked by
  # Emily.Fast; what is left is what MLX wants otherwise than Nx.

  alias Emily.Fast
  alias Emily.Quantization.{Dequantize, GatherMatmul, Matmul}

  import Emily.Lower, only: [cast: 2, dtype: 1, value: 1]

  @doc "The expression of a kernel; `:default` for a block that is none."
  def block(%Fast.RMSNorm{eps: eps}, _out, [x, weight]),
    do: {:rms_norm, value(x), cast(weight, x.type), eps}

  def block(%Fast.LayerNorm{eps: eps}, _out, [x, weight, bias]),
    do: {:layer_norm, value(x), cast(weight, x.type), cast(bias, x.type), eps}

  def block(%Fast.Activation{name: name}, _out, [x]), do: {name, value(x)}

  def block(%Fast.Gate{activation: activation}, _out, [gate, up]),
    do: {gate(activation), value(gate), cast(up, gate.type)}

  def block(%Fast.RoPE{} = kernel, _out, [x, offset | freqs]) do
    {:rope, value(x), kernel.dims, kernel.traditional, kernel.base, kernel.scale,
     cast(offset, {:s, 32}), periods(freqs)}
  end

  def block(%Fast.Attention{} = kernel, _out, [q, k, v | extras]) do
    {mask, sinks} = Fast.Attention.extras(kernel, extras)

    {:attention, value(q), cast(k, q.type), cast(v, q.type), kernel.scale,
     mask(kernel, mask, q.type), sinks && cast(sinks, q.type)}
  end

  def block(%Fast.CachedAttention{scale: scale}, _out, [q, k, v, key_mask, offset]) do
    {:cached_attention, value(q), cast(k, q.type), cast(v, q.type), scale, value(key_mask),
     value(offset)}
  end

  def block(%Fast.Einsum{} = kernel, out, operands),
    do: Emily.Lower.Einsum.block(kernel, out, operands)

  def block(%module{} = kernel, _out, tensors) when module in [Dequantize, Matmul, GatherMatmul],
    do: Emily.Lower.Quantized.block(kernel, tensors)

  # No kernel of Emily's.
  def block(_struct, _out, _args), do: :default

  defp gate(:silu), do: :swiglu
  defp gate(:gelu), do: :geglu
  defp gate(:gelu_tanh), do: :geglu_tanh

  # MLX divides by its table where the inverse frequencies multiply.
  defp periods([]), do: nil
  defp periods([freqs]), do: {:divide, {:full, [], 1.0, :f32}, value(freqs)}

  defp mask(%{causal: true}, nil, _type), do: :causal
  defp mask(_kernel, nil, _type), do: nil

  defp mask(_kernel, mask, type) do
    case Fast.Attention.mask_bounds(mask.type, type) do
      nil ->
        cast(mask, type)

      {low, high} ->
        wide = if float?(mask), do: mask.type, else: {:f, 32}
        bound = fn number -> {:full, [], number, dtype(wide)} end
        clipped = {:clip, cast(mask, wide), bound.(low), bound.(high)}
        if wide == type, do: clipped, else: {:astype, clipped, dtype(type)}
    end
  end

  defp float?(%{type: {kind, _}}), do: kind in [:f, :bf]
end
