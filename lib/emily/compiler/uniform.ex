defmodule Emily.Compiler.Uniform do
  @moduledoc false
  # Elementwise operations with a tensor that has one number everywhere, as Axon's gradient of a rectifier has zeros.

  alias Nx.Defn.Expr
  alias Nx.Tensor, as: T

  @names [:add, :subtract, :multiply, :divide, :min, :max, :select] ++
           [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal]

  @doc """
  An operation that takes the number itself, for which no memory is filled, where the result has the shape of another
  operand. Any other node as it is.
  """
  def numbers(%T{shape: shape, data: %Expr{op: name, args: args} = expr} = node)
      when name in @names do
    if Enum.any?(args, &(&1.shape == shape and not constant?(&1))),
      do: %{node | data: %{expr | args: Enum.map(args, &number/1)}},
      else: node
  end

  def numbers(node), do: node

  defp number(arg), do: if(constant?(arg), do: %{arg | shape: {}, names: []}, else: arg)

  defp constant?(%T{data: %Expr{op: op}}), do: op == :constant
end
