defmodule Emily.Bumblebee.FastKernels.Norm do
  @moduledoc false
  # Layer norms and RMS norms over the last axis.

  import Emily.Bumblebee.FastKernels.Layer

  alias Bumblebee.Layers
  alias Bumblebee.Text.{ModernBert, ModernBertDecoder}

  def rewrite(node, _nodes) do
    case recognise(operation(node), node) do
      nil -> nil
      {kind, norm} -> decide(kind, norm, node)
    end
  end

  defp recognise(:layer_norm, node), do: {:layer_norm, options(node, epsilon: 1.0e-5)}

  # Without a bias, the epsilon in the function's environment.
  defp recognise({module, name}, %{op_name: :layer_norm, op: op} = node)
       when module in [ModernBert, ModernBertDecoder] do
    with true <- String.starts_with?(Atom.to_string(name), "-layer_norm/2-fun-"),
         {:env, [epsilon]} when is_number(epsilon) <- Function.info(op, :env) do
      {:layer_norm, options(node, epsilon: epsilon)}
    else
      _ -> nil
    end
  end

  defp recognise({Layers, :rms_norm_impl_upcast_normalization}, node),
    do: {:rms_norm, rms(node, :normalization)}

  defp recognise({Layers, :rms_norm_impl_upcast_all}, node), do: {:rms_norm, rms(node, :all)}

  defp recognise(:rms_norm, node),
    do: {:rms_norm, rms(node, node.opts[:upcast] || :normalization)}

  defp recognise(_operation, _node), do: nil

  defp rms(node, upcast),
    do: Map.put(options(node, epsilon: 1.0e-6, shift: 0.0), :upcast, upcast)

  defp options(node, defaults) do
    for {key, default} <- [channel_index: -1] ++ defaults, into: %{} do
      {key, Keyword.get(node.opts, key, default)}
    end
  end

  defp decide(kind, norm, %{op: op, args: args} = node) do
    case {args, norm.channel_index} do
      {[:layer, :parameter], -1} ->
        {:rewritten, kind, %{node | op: fn x, w, opts -> run(norm, x, [w], opts, op) end}}

      {[:layer, :parameter, :parameter], -1} ->
        {:rewritten, kind, %{node | op: fn x, w, b, opts -> run(norm, x, [w, b], opts, op) end}}

      {_, -1} ->
        {:left, kind, "its inputs are not one tensor and its parameters"}

      {_, index} ->
        {:left, kind, "channel_index is #{inspect(index)}, not -1"}
    end
  end

  defp run(norm, x, parameters, opts, op) do
    if fits?(norm, x, parameters),
      do: norm(norm, x, parameters),
      else: original(op, [x | parameters] ++ [opts])
  end

  defp fits?(norm, x, parameters) do
    Enum.all?(parameters, &(&1.shape == {Nx.axis_size(x, -1)})) and
      (norm[:upcast] == :all or fused_types?([x | parameters]))
  end

  # The whole of it in f32, which the result keeps.
  defp norm(%{upcast: :all} = norm, x, [weight]) do
    [x, weight] = for t <- [x, weight], do: Nx.as_type(t, :f32)
    norm(%{norm | upcast: :normalization}, x, [weight])
  end

  defp norm(%{shift: shift} = norm, x, [weight]) do
    weight = if shift == 0, do: weight, else: Nx.add(weight, shift)
    Emily.Fast.rms_norm(x, weight, eps: norm.epsilon)
  end

  defp norm(norm, x, [weight]),
    do: norm(norm, x, [weight, Nx.broadcast(Nx.tensor(0, type: x.type), weight.shape)])

  defp norm(norm, x, [weight, bias]),
    do: Emily.Fast.layer_norm(x, weight, bias, eps: norm.epsilon)
end
