defmodule Emily.Compiler.Shard.Reshape do
  @moduledoc false
  # What of a split survives a reshape: an axis that stays, or that begins what becomes an axis, or several.

  alias Emily.Compiler.Shard.Mesh

  @doc "The split that the operand keeps, and the one of the result."
  def split(from, split, to, mesh) do
    from = from |> Tuple.to_list() |> Enum.zip(split)
    {kept, result} = groups(from, Tuple.to_list(to), mesh, [], [])
    {kept, result}
  end

  # The shortest beginnings of both with as many elements go together.
  defp groups([], to, _mesh, kept, result),
    do: {Enum.reverse(kept), Enum.reverse(result, Enum.map(to, fn _one -> [] end))}

  defp groups(from, [], _mesh, kept, result),
    do: {Enum.reverse(kept, Enum.map(from, fn _one -> [] end)), Enum.reverse(result)}

  # An axis of one element, which no partition has less of, goes by itself.
  defp groups([{1, _axes} | from], to, mesh, kept, result) when hd(to) != 1,
    do: groups(from, to, mesh, [[] | kept], result)

  defp groups(from, [1 | to], mesh, kept, result) when elem(hd(from), 0) != 1,
    do: groups(from, to, mesh, kept, [[] | result])

  defp groups(from, to, mesh, kept, result) do
    {many, few} = taken(from, to)
    {group, from} = Enum.split(from, many)
    {sizes, to} = Enum.split(to, few)
    {_size, axes} = hd(group)
    survives? = rem(hd(sizes), Mesh.factor(mesh, axes)) == 0
    first = if survives?, do: axes, else: []
    kept = Enum.reverse([first | Enum.map(tl(group), fn _ -> [] end)], kept)
    result = Enum.reverse([first | Enum.map(tl(sizes), fn _ -> [] end)], result)
    groups(from, to, mesh, kept, result)
  end

  defp taken([{size, _} | from], [other | to]), do: taken(size, from, 1, other, to, 1)

  defp taken(size, _from, many, size, _to, few), do: {many, few}

  defp taken(size, [{next, _} | from], many, other, to, few) when size < other,
    do: taken(size * next, from, many + 1, other, to, few)

  defp taken(size, from, many, other, [next | to], few),
    do: taken(size, from, many, other * next, to, few + 1)
end
