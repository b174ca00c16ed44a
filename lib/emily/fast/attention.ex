defmodule Emily.Fast.Attention do
  @moduledoc false
  # All variants of the attention kernel; its tensors are q, k, v, then the mask where `mask` is
  # true, then the sinks, of shape {heads}, where `sinks` is true.

  @behaviour Emily.Fast.Node

  defstruct [:scale, causal: false, mask: false, sinks: false]

  alias Emily.Fast.Composed

  @impl true
  def callback(%{mask: false, sinks: false}), do: :fast_scaled_dot_product_attention
  def callback(%{mask: false, sinks: true}), do: :fast_scaled_dot_product_attention_with_sinks
  def callback(%{mask: true, sinks: false}), do: :fast_scaled_dot_product_attention_with_mask

  def callback(%{mask: true, sinks: true}),
    do: :fast_scaled_dot_product_attention_with_mask_and_sinks

  @doc "The mask and the sinks among the tensors that follow q, k and v; nil where there is none."
  def extras(%{mask: true, sinks: true}, [mask, sinks]), do: {mask, sinks}
  def extras(%{mask: true, sinks: false}, [mask]), do: {mask, nil}
  def extras(%{mask: false, sinks: true}, [sinks]), do: {nil, sinks}
  def extras(%{mask: false, sinks: false}, []), do: {nil, nil}

  @doc """
  The bounds that a mask is clipped to before it is taken in `type`, nil where it needs none.

  A mask of another type may hold values beyond `type`, and in f16 the least number plus a score is
  beyond it too. They must not become infinite: a row of infinities alone gives NaN, which spreads.
  Half of the range hides a key as well as all of it.
  """
  def mask_bounds(mask_type, type)
  def mask_bounds({kind, 8}, _type) when kind in [:s, :u], do: nil
  def mask_bounds(_mask, {:f, 16}), do: {-32_752.0, 32_752.0}
  def mask_bounds({:f, 64}, {:f, 32}), do: {-1.7e38, 1.7e38}
  def mask_bounds({:f, bits}, {:bf, 16}) when bits > 16, do: {-1.69e38, 1.69e38}
  def mask_bounds(_mask, _type), do: nil

  @impl true
  def composed(%__MODULE__{} = kernel, [q, k, v | extras]) do
    {mask, sinks} = extras(kernel, extras)
    {batch, heads, q_len, head_dim} = q.shape
    {_, groups, k_len, _} = k.shape
    v_dim = Nx.axis_size(v, -1)
    type = Composed.compute_type(q.type)

    # The query heads that share a key head are neighbours: they are so many more rows of queries.
    rows = div(heads, groups) * q_len

    scores =
      q
      |> Composed.up(q.type)
      |> Nx.multiply(kernel.scale)
      |> Nx.reshape({batch, groups, rows, head_dim})
      |> Nx.dot([3], [0, 1], Composed.up(k, q.type), [3], [0, 1])
      |> Nx.reshape({batch, heads, q_len, k_len})
      |> add_mask(mask, type)
      |> hide_future(kernel.causal, q_len, k_len, type)

    scores
    |> softmax(sinks && Composed.up(sinks, q.type))
    |> Nx.reshape({batch, groups, rows, k_len})
    |> Nx.dot([3], [0, 1], Composed.up(v, q.type), [2], [0, 1])
    |> Nx.reshape({batch, heads, q_len, v_dim})
    |> Nx.as_type(q.type)
  end

  defp add_mask(scores, nil, _type), do: scores

  defp add_mask(scores, mask, type) do
    mask =
      case mask_bounds(mask.type, type) do
        nil -> mask
        {low, high} -> Nx.clip(mask, low, high)
      end

    Nx.add(scores, Nx.as_type(mask, type))
  end

  # The last query sees all keys, each one before it sees one key less.
  defp hide_future(scores, false, _q_len, _k_len, _type), do: scores

  defp hide_future(scores, true, q_len, k_len, type) do
    query = Nx.iota({q_len, k_len}, axis: 0)
    key = Nx.iota({q_len, k_len}, axis: 1)
    seen = Nx.greater_equal(Nx.add(query, k_len - q_len), key)

    Nx.select(
      Nx.broadcast(seen, scores.shape),
      scores,
      Nx.broadcast(Nx.Constants.min_finite(type), scores.shape)
    )
  end

  # The sinks take their share of each row, then leave.
  defp softmax(scores, nil) do
    weights = Nx.exp(Nx.subtract(scores, Nx.reduce_max(scores, axes: [-1], keep_axes: true)))
    Nx.divide(weights, Nx.sum(weights, axes: [-1], keep_axes: true))
  end

  defp softmax(scores, sinks) do
    sinks = Nx.reshape(sinks, {1, Nx.size(sinks), 1, 1})
    top = scores |> Nx.reduce_max(axes: [-1], keep_axes: true) |> Nx.max(sinks)
    weights = Nx.exp(Nx.subtract(scores, top))

    total =
      weights |> Nx.sum(axes: [-1], keep_axes: true) |> Nx.add(Nx.exp(Nx.subtract(sinks, top)))

    Nx.divide(weights, total)
  end
end
