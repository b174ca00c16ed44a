defmodule Emily.Quantization.Dequantize do
  @moduledoc false
  # The numbers of a packed weight as a kernel.

  @behaviour Emily.Fast.Node

  defstruct [:packing]

  alias Emily.Quantization.Packing

  @impl true
  def callback(_kernel), do: :fast_dequantize

  @impl true
  def composed(%{packing: packing}, [value, scales | biases]) do
    packing
    |> Packing.numbers(value, scales, List.first(biases))
    |> Nx.as_type(Packing.type(packing, scales))
  end
end
