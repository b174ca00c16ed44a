defmodule Emily.Lower.Reduce.Probe do
  @moduledoc false
  # A backend whose tensors hold no numbers but how they came about, as the expressions of Nx.Defn
  # do: to see what a function does by calling it. Those expressions themselves would not pass
  # through the functions that Nx.Defn.Evaluator makes.
  #
  # It has the operations that Emily.Lower.Reduce.Fold looks for. A function that does anything else raises.

  alias Nx.Tensor, as: T

  defstruct [:op, :args]

  @doc "The argument number `index` of a function."
  def parameter(index, type) do
    %{Nx.template({}, type) | data: %__MODULE__{op: :parameter, args: [index]}}
  end

  def as_type(out, x), do: %{out | data: %__MODULE__{op: :as_type, args: [x]}}

  for name <- Keyword.keys(Emily.Lower.Reduce.Fold.operations()) do
    def unquote(name)(out, x, y), do: %{out | data: %__MODULE__{op: unquote(name), args: [x, y]}}
  end

  def inspect(%T{data: %{op: op}}, _opts), do: "#{Kernel.inspect(__MODULE__)} #{op}"
end
