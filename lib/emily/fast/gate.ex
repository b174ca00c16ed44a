defmodule Emily.Fast.Gate do
  @moduledoc false
  # The activation of a gate times what goes through it.

  @behaviour Emily.Fast.Node

  defstruct [:activation]

  alias Emily.Fast.{Activation, Composed}

  @impl true
  def callback(_kernel), do: :fast_gate

  @impl true
  def composed(%__MODULE__{activation: activation}, [gate, up]) do
    gate
    |> Composed.up(gate.type)
    |> Activation.of(activation)
    |> Nx.multiply(Composed.up(up, gate.type))
    |> Nx.as_type(gate.type)
  end
end
