defmodule Emily.Fast.CachedAttention do
  @moduledoc false
  # Attention over a cache of which the first keys are filled: query `i` sees the keys up to
  # `offset + i` where the mask of the keys, {batch, keys}, is not 0. A program of Emily's that waits
  # looks at both, and computes over the keys that are seen.

  @behaviour Emily.Fast.Node

  defstruct [:scale]

  alias Emily.Fast.{Attention, Node}

  def run(q, k, v, key_mask, offset, opts) do
    scale = opts[:scale] || 1 / :math.sqrt(Nx.axis_size(q, -1))
    out = Nx.template(put_elem(q.shape, 3, Nx.axis_size(v, -1)), q.type, names: q.names)
    Node.emit(%__MODULE__{scale: scale}, [q, k, v, key_mask, offset], out)
  end

  @impl true
  def callback(_kernel), do: :fast_cached_attention

  @impl true
  def composed(%__MODULE__{scale: scale}, [q, k, v, key_mask, offset]) do
    {batch, _heads, q_len, _size} = q.shape
    k_len = Nx.axis_size(k, 2)
    query = Nx.add(Nx.iota({1, 1, q_len, 1}, axis: 2), offset)
    key = Nx.iota({1, 1, 1, k_len}, axis: 3)
    seen = Nx.logical_and(Nx.reshape(key_mask, {batch, 1, 1, k_len}), Nx.less_equal(key, query))
    mask = Nx.select(seen, Nx.tensor(0.0, type: q.type), Nx.Constants.min_finite(q.type))
    Attention.composed(%Attention{scale: scale, mask: true}, [q, k, v, mask])
  end
end
