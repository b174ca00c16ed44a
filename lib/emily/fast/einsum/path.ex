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

  defp size(mask, sizes),
    do: for({bit, size} <- sizes, (bit &&& mask) != 0, reduce: 1, do: (acc -> acc * size))

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
    everything = (1 <<< length(sets)) - 1

    # Each set of operands, after those that it is made of: {cost, letters, steps so far, last first}.
    best =
      Enum.reduce(1..everything, %{}, fn members, best ->
        outside =
          for {bit, set} <- operands,
              (bit &&& members) == 0,
              reduce: output,
              do: (acc -> acc ||| set)

        found =
          case List.keyfind(operands, members, 0) do
            {_, set} ->
              {0, set, []}

            nil ->
              members
              |> splits()
              |> Enum.map(&join(&1, best, outside, sizes))
              |> Enum.min_by(&elem(&1, 0))
          end

        Map.put(best, members, found)
      end)

    {_cost, _letters, steps} = best[everything]
    positions(Enum.reverse(steps), Enum.map(operands, &elem(&1, 0)))
  end

  # The two halves of every split, the first with the lowest member.
  defp splits(members) do
    members
    |> Stream.iterate(&(&1 - 1 &&& members))
    |> Stream.drop(1)
    |> Stream.take_while(&(&1 > 0))
    |> Stream.filter(&((&1 &&& members &&& -members) != 0))
    |> Enum.map(&{&1, bxor(members, &1)})
  end

  defp join({left, right}, best, outside, sizes) do
    {left_cost, left_letters, left_steps} = best[left]
    {right_cost, right_letters, right_steps} = best[right]
    letters = left_letters ||| right_letters
    cost = left_cost + right_cost + size(letters, sizes)
    {cost, letters &&& outside, [{left, right} | right_steps ++ left_steps]}
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
