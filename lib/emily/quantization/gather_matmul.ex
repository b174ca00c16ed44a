defmodule Emily.Quantization.GatherMatmul do
  @moduledoc false
  # Products of chosen matrices with chosen packed ones as a kernel.

  @behaviour Emily.Fast.Node

  defstruct [:packing, :transpose, :type]

  alias Emily.Fast.Composed
  alias Emily.Quantization.Packing

  @impl true
  def callback(_kernel), do: :fast_gather_qmm

  @impl true
  def composed(%__MODULE__{} = kernel, [x, left, right | weight]) do
    type = Composed.compute_type(kernel.type)
    weight = Packing.numbers(kernel.packing, weight)
    {left, right} = broadcast(left, right)

    x
    |> chosen(left, type)
    |> multiply(chosen(weight, right, type), kernel.transpose)
    |> Nx.as_type(kernel.type)
  end

  defp broadcast(left, right) do
    shape = shape(left.shape, right.shape)
    {Nx.broadcast(left, shape), Nx.broadcast(right, shape)}
  end

  defp chosen(tensor, indices, type) do
    rank = tuple_size(tensor.shape)

    matrices =
      Nx.reshape(tensor, {:auto, elem(tensor.shape, rank - 2), elem(tensor.shape, rank - 1)})

    indices = indices |> Nx.max(0) |> Nx.min(elem(matrices.shape, 0) - 1)
    matrices |> Nx.take(indices) |> Nx.as_type(type)
  end

  defp multiply(x, weight, transpose) do
    batch = Enum.to_list(0..(tuple_size(x.shape) - 3)//1)
    Nx.dot(x, [-1], batch, weight, [if(transpose, do: -1, else: -2)], batch)
  end

  @doc "The indices of all matrices, in the shape of the leading axes."
  def all(shape) do
    leading = shape |> Tuple.to_list() |> Enum.drop(-2) |> List.to_tuple()
    if leading == {}, do: Nx.tensor(0, type: :u32), else: Nx.iota(leading, type: :u32)
  end

  @doc "The shape of the products, or `{:error, what is expected}`."
  def product(x, weight, transpose, [left, right]) do
    {x_rank, rank} = {tuple_size(x), tuple_size(weight)}
    {outer, inner} = {elem(weight, rank - 2), elem(weight, rank - 1)}
    {outer, inner} = if transpose, do: {outer, inner}, else: {inner, outer}

    cond do
      x_rank < 2 ->
        {:error, "x of rank 2 or more"}

      rank < 3 ->
        {:error, "a weight of rank 3 or more"}

      elem(x, x_rank - 1) != inner ->
        {:error, "x with a last axis of #{inner}, as the weight has it"}

      shape = shape(left, right) ->
        {:ok, List.to_tuple(Tuple.to_list(shape) ++ [elem(x, x_rank - 2), outer])}

      true ->
        {:error, "indices that broadcast, not of shapes #{inspect(left)} and #{inspect(right)}"}
    end
  end

  defp shape(left, right), do: Packing.broadcast(Tuple.to_list(left), Tuple.to_list(right))
end
