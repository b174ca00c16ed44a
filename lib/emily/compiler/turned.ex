defmodule Emily.Compiler.Turned do
  @moduledoc false
  # Convolutions that read their kernel the other way round, as gradients with respect to an input do.

  alias Nx.Defn.Expr
  alias Nx.Tensor, as: T

  @doc """
  A convolution of a kernel that is reversed along all its spatial axes, as one of the kernel itself with the option `:flip`,
  which has it read where it lies. Any other node as it is.
  """
  def turned(%T{data: %Expr{op: :conv, args: [tensor, kernel, opts]} = expr} = node) do
    [_, _ | spatial] = opts[:kernel_permutation]

    with %T{data: %Expr{op: :reverse, args: [kernel, axes]}} <- kernel,
         true <- Enum.sort(axes) == Enum.sort(spatial) do
      %{node | data: %{expr | args: [tensor, kernel, [flip: true] ++ opts]}}
    else
      _ -> node
    end
  end

  def turned(node), do: node
end
