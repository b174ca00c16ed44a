defmodule Emily.Fast.Einsum.Path do
  @moduledoc false
  # The order in which the operands of an einsum are contracted, two at a time.
  #
  # Sets of letters and sets of operands are integers, one bit a member.

  import Bitwise

  # The search looks at every way to split every set of operands: 3^n / 2 of them.
  @optimal_up_to 6

  @doc """
  The pairs to contract, as positions `{i, j}` with `i < j` among the operands that are left. Both
  leave their places, and what they give comes last.

  A pair costs as many multiplications as the product of the sizes of all its letters. Up to
  #{@optimal_up_to} operands the order is the cheapest there is. With more, each step takes the pair
  that leaves the least to store, as the greedy orders of NumPy and opt_einsum do.

  `groups` are without the axes of size 1, which broadcast.
  """
  def find(groups, output, sizes) do
    letters = groups |> Enum.concat() |> Enum.uniq()
    bits = letters |> Enum.with_index() |> Map.new(fn {letter, i} -> {letter, 1 <<< i} end)
    sizes = for letter <- letters, do: {bits[letter], sizes[letter]}
    mask = fn letters -> Enum.reduce(letters, 0, &(Map.get(bits, &1, 0) ||| &2)) end

    sets = Enum.map(groups, mask)
    output = mask.(output)
    # A letter of one operand alone is summed before the first step.
    {twice, _thrice} = repeated(sets)
    sets = Enum.map(sets, &(&1 &&& (output ||| twice)))

    cond do
      length(sets) <= 2 -> Enum.drop([{0, 1}], 2 - length(sets))
      length(sets) <= @optimal_up_to -> optimal(sets, output, sizes)
      true -> greedy(sets, output, sizes)
    end
  end

  defp size(mask, sizes), do: size(sizes, mask, 1)

  defp size([{bit, size} | rest], mask, product) when (bit &&& mask) != 0,
    do: size(rest, mask, product * size)

  defp size([_ | rest], mask, product), do: size(rest, mask, product)
  defp size([], _mask, product), do: product

  # The letters of two sets or more, and those of three or more.
  defp repeated(sets) do
    {_once, twice, thrice} =
      Enum.reduce(sets, {0, 0, 0}, fn set, {once, twice, thrice} ->
        {once ||| set, twice ||| (once &&& set), thrice ||| (twice &&& set)}
      end)

    {twice, thrice}
  end

  ## The cheapest order

  defp optimal(sets, output, sizes) do
    operands = sets |> Enum.with_index() |> Enum.map(fn {set, i} -> {1 <<< i, set} end)
    single = Map.new(operands, fn {bit, set} -> {bit, {0, set, []}} end)
    everything = (1 <<< length(sets)) - 1

    # For each set of operands, after those that it is made of: the least cost, the letters that it
    # leaves, and the steps to it, the last one first.
    best =
      for members <- 1..everything, not is_map_key(single, members), reduce: single do
        best ->
          Map.put(
            best,
            members,
            cheapest(members, best, outside(members, operands, output), sizes)
          )
      end

    {_cost, _letters, steps} = best[everything]
    positions(Enum.reverse(steps), Enum.map(operands, &elem(&1, 0)))
  end

  # The letters that are needed outside of a set of operands.
  defp outside(members, operands, output) do
    for {bit, set} <- operands, (bit &&& members) == 0, reduce: output, do: (acc -> acc ||| set)
  end

  defp cheapest(members, best, outside, sizes) do
    lowest = members &&& -members

    {cost, letters, left, right} =
      members |> bxor(lowest) |> splits(lowest) |> Enum.map(&join(&1, best, sizes)) |> Enum.min()

    {_, _, left_steps} = best[left]
    {_, _, right_steps} = best[right]
    {cost, letters &&& outside, [{left, right} | right_steps ++ left_steps]}
  end

  # Every way to leave some of `rest` with `lowest` and some on the other side.
  defp splits(rest, lowest), do: splits(rest - 1 &&& rest, rest, lowest)
  defp splits(0, rest, lowest), do: [{lowest, rest}]

  defp splits(some, rest, lowest),
    do: [{lowest ||| some, bxor(rest, some)} | splits(some - 1 &&& rest, rest, lowest)]

  defp join({left, right}, best, sizes) do
    %{^left => {left_cost, left_letters, _}, ^right => {right_cost, right_letters, _}} = best
    letters = left_letters ||| right_letters
    {left_cost + right_cost + size(letters, sizes), letters, left, right}
  end

  # Steps between sets of operands as steps between places.
  defp positions(steps, places) do
    {path, _places} =
      Enum.map_reduce(steps, places, fn {left, right}, places ->
        [i, j] = Enum.sort(for set <- [left, right], do: Enum.find_index(places, &(&1 == set)))
        {{i, j}, remove(places, i, j) ++ [left ||| right]}
      end)

    path
  end

  defp remove(list, i, j), do: list |> List.delete_at(j) |> List.delete_at(i)

  ## The greedy order

  defp greedy([_], _output, _sizes), do: []

  defp greedy(sets, output, sizes) do
    {twice, thrice} = repeated(sets)
    {twice, thrice} = {twice ||| output, thrice ||| output}
    indexed = Enum.with_index(sets)

    {_, i, j, result} =
      for(
        {a, i} <- indexed,
        {b, j} <- indexed,
        i < j,
        do: weigh({a, i}, {b, j}, twice, thrice, sizes)
      )
      |> Enum.min()

    [{i, j} | greedy(remove(sets, i, j) ++ [result], output, sizes)]
  end

  # Pairs without a common letter come last.
  defp weigh({a, i}, {b, j}, twice, thrice, sizes) do
    result = (a &&& b &&& thrice) ||| (bxor(a, b) &&& twice)
    growth = size(result, sizes) - size(a, sizes) - size(b, sizes)
    {{(a &&& b) == 0, growth, size(a ||| b, sizes)}, i, j, result}
  end
end
