defmodule Emily.Declared do
  @moduledoc false
  # What Nx says of results before anything is computed. Nx.BinaryBackend holds numbers in lists, and has no memory for
  # results that are far larger than what they are made of; so such calls are not drawn.

  alias Nx.Tensor, as: T

  @doc "What `fun` gives of tensors, as expressions of Nx.Defn; raises what Nx raises."
  def of(fun, tensors) do
    Nx.Defn.debug_expr_apply(fn tuple -> fun.(Tuple.to_list(tuple)) end, [List.to_tuple(tensors)])
  end

  @doc "Whether `fun` gives no more than `most` elements of tensors, as far as Nx says it."
  def within?(most, fun, tensors) do
    fun |> of(tensors) |> elements() <= most
  rescue
    # What Nx refuses has no elements, and lists are no expressions.
    _refused -> true
  end

  defp elements(%T{} = x), do: x |> Nx.devectorize() |> Nx.size()

  defp elements(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.map(&elements/1) |> Enum.sum()

  defp elements(_other), do: 0
end
