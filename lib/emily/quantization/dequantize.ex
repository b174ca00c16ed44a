defmodule Emily.Quantization.Dequantize do
  @moduledoc false
  # The numbers of a packed weight as a kernel.

  @behaviour Emily.Fast.Node

  defstruct [:packing, :type]

  alias Emily.Fast.Node
  alias Emily.Quantization.Packing

  @impl true
  def callback(_kernel), do: :fast_dequantize

  @impl true
  def composed(%{packing: packing, type: type}, weight) do
    packing
    |> Packing.numbers(weight)
    |> Nx.as_type(type)
  end

  @doc "The numbers of a weight in a type, rounded once."
  def run(packing, weight, type) do
    out = Nx.template(Packing.shape(packing, weight.value.shape), type)
    Node.emit(%__MODULE__{packing: packing, type: type}, Packing.tensors(weight), out)
  end
end
