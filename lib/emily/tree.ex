defmodule Emily.Tree do
  @moduledoc false
  # Whatever holds tensors: Nx's containers, `Axon.ModelState` among them, and lists. What is neither a tensor nor
  # holds one stays as it is.

  alias Nx.Tensor, as: T

  @doc "The tree with what `fun` makes of each tensor, and what it gathers on the way."
  def map_reduce(%T{} = tensor, acc, fun), do: fun.(tensor, acc)
  def map_reduce(%Complex{} = number, acc, _fun), do: {number, acc}

  # An improper list holds nothing.
  def map_reduce(list, acc, fun) when is_list(list) do
    if List.improper?(list),
      do: {list, acc},
      else: Enum.map_reduce(list, acc, &map_reduce(&1, &2, fun))
  end

  def map_reduce(tree, acc, fun) when is_tuple(tree) or is_map(tree) do
    if Nx.Container.impl_for(tree),
      do: Nx.Container.traverse(tree, acc, &map_reduce(&1, &2, fun)),
      else: {tree, acc}
  end

  def map_reduce(other, acc, _fun), do: {other, acc}

  @doc "The tree with what `fun` makes of each tensor."
  def map(tree, fun) do
    {tree, nil} = map_reduce(tree, nil, fn tensor, nil -> {fun.(tensor), nil} end)
    tree
  end

  @doc "The tensors of a tree, in order."
  def tensors(tree) do
    {_, tensors} = map_reduce(tree, [], fn tensor, tensors -> {tensor, [tensor | tensors]} end)
    Enum.reverse(tensors)
  end
end
