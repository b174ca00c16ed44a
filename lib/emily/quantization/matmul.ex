defmodule Emily.Quantization.Matmul do
  @moduledoc false
  # The product with a packed weight as a kernel.

  @behaviour Emily.Fast.Node

  defstruct [:packing, :transpose, :type]

  alias Emily.Fast.Composed
  alias Emily.Quantization.Packing

  import Packing, only: [last: 1, put_last: 2]

  @impl true
  def callback(_kernel), do: :fast_quantized_matmul

  @impl true
  def composed(%__MODULE__{} = kernel, [x | weight]) do
    weight = Packing.numbers(kernel.packing, weight)
    type = Composed.compute_type(kernel.type)

    x
    |> Nx.as_type(type)
    |> multiply(Nx.as_type(weight, type), kernel.transpose)
    |> Nx.as_type(kernel.type)
  end

  # `x . Wᵀ` or `x . W`, leading axes broadcast as in NumPy's matmul.
  defp multiply(x, %{shape: {_, _}} = weight, transpose),
    do: Nx.dot(x, [-1], weight, [inner(transpose)])

  defp multiply(x, weight, transpose) do
    batch = batch(x.shape, weight.shape)
    axes = Enum.to_list(0..(tuple_size(batch) - 1))
    [x, weight] = for tensor <- [x, weight], do: Nx.broadcast(tensor, shape(batch, tensor.shape))
    Nx.dot(x, [-1], axes, weight, [inner(transpose)], axes)
  end

  defp inner(true), do: -1
  defp inner(false), do: -2

  defp shape(batch, matrix) do
    rank = tuple_size(matrix)
    List.to_tuple(Tuple.to_list(batch) ++ [elem(matrix, rank - 2), elem(matrix, rank - 1)])
  end

  @doc """
  The shape of the product of `x` and a weight of shape `weight`, or `{:error, reason}`.
  """
  def product(x, weight, transpose) do
    {x_rank, rank} = {tuple_size(x), tuple_size(weight)}
    {inner, outer} = {elem(weight, rank - 2), elem(weight, rank - 1)}
    {inner, outer} = if transpose, do: {outer, inner}, else: {inner, outer}

    least = if rank > 2, do: 2, else: 1

    cond do
      x_rank < least ->
        {:error, "of rank #{least} or more"}

      last(x) != inner ->
        {:error, "with a last axis of #{inner}, as the weight has it"}

      rank == 2 ->
        {:ok, put_last(x, outer)}

      batch = batch(x, weight) ->
        {:ok,
         batch |> Tuple.to_list() |> Kernel.++([elem(x, x_rank - 2), outer]) |> List.to_tuple()}

      true ->
        {:error, "whose leading axes broadcast with the weight's"}
    end
  end

  # The leading axes of both, broadcast; nil where they cannot be.
  defp batch(x, weight) do
    leading = fn shape -> shape |> Tuple.to_list() |> Enum.drop(-2) end
    Packing.broadcast(leading.(x), leading.(weight))
  end
end
