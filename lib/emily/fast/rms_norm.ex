defmodule Emily.Fast.RMSNorm do
  @moduledoc false

  @behaviour Emily.Fast.Node

  defstruct [:eps]

  alias Emily.Fast.Composed

  @impl true
  def callback(_kernel), do: :fast_rms_norm

  @impl true
  def composed(%__MODULE__{eps: eps}, [x, weight]) do
    wide = Composed.up(x, x.type)

    scale =
      wide
      |> Nx.multiply(wide)
      |> Nx.mean(axes: [-1], keep_axes: true)
      |> Nx.add(eps)
      |> Nx.rsqrt()

    wide
    |> Nx.multiply(scale)
    |> Nx.multiply(Composed.up(weight, x.type))
    |> Nx.as_type(x.type)
  end
end
