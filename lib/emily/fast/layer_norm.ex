defmodule Emily.Fast.LayerNorm do
  @moduledoc false

  @behaviour Emily.Fast.Node

  defstruct [:eps]

  alias Emily.Fast.Composed

  @impl true
  def callback(_kernel), do: :fast_layer_norm

  @impl true
  def composed(%__MODULE__{eps: eps}, [x, weight, bias]) do
    wide = Composed.up(x, x.type)
    centered = Nx.subtract(wide, Nx.mean(wide, axes: [-1], keep_axes: true))

    scale =
      centered
      |> Nx.multiply(centered)
      |> Nx.mean(axes: [-1], keep_axes: true)
      |> Nx.add(eps)
      |> Nx.rsqrt()

    centered
    |> Nx.multiply(scale)
    |> Nx.multiply(Composed.up(weight, x.type))
    |> Nx.add(Composed.up(bias, x.type))
    |> Nx.as_type(x.type)
  end
end
