defmodule Emily.Fast.Activation do
  @moduledoc false
  # GELU, exact (`:gelu`) or by tanh (`:gelu_tanh`).

  @behaviour Emily.Fast.Node

  defstruct [:name]

  alias Emily.Fast.Composed

  @impl true
  def callback(_kernel), do: :fast_activation

  @impl true
  def composed(%__MODULE__{name: name}, [x]),
    do: x |> Composed.up(x.type) |> of(name) |> Nx.as_type(x.type)

  @doc "The activation of `x`, in its type."
  def of(x, :silu), do: Nx.multiply(x, Nx.sigmoid(x))

  def of(x, :gelu) do
    x
    |> times(:math.sqrt(0.5))
    |> Nx.erf()
    |> Nx.add(1)
    |> Nx.multiply(x)
    |> times(0.5)
  end

  # (1 + tanh(u)) / 2 is the sigmoid of 2u.
  def of(x, :gelu_tanh) do
    cubic = x |> Nx.multiply(x) |> Nx.multiply(x) |> times(0.044715)
    twice = x |> Nx.add(cubic) |> times(2 * :math.sqrt(2 / :math.pi()))
    Nx.multiply(x, Nx.sigmoid(twice))
  end

  # A plain number would be rounded to f32.
  defp times(x, number), do: Nx.multiply(x, Nx.tensor(number, type: x.type))
end
