defmodule Emily.Fast.Einsum.PathTest do
  use ExUnit.Case, async: true

  alias Emily.Fast.Einsum.Path

  defp find(equation, sizes) do
    {groups, output} = Emily.Fast.Einsum.Equation.groups(equation)
    {Path.find(groups, output, sizes), groups, output}
  end

  # The multiplications of a path, each pair costing the product of the sizes of all its letters.
  defp cost(path, groups, output, sizes) do
    {cost, [_]} =
      Enum.reduce(path, {0, Enum.map(groups, &summed(&1, groups -- [&1], output))}, fn {i, j},
                                                                                       {cost,
                                                                                        groups} ->
        assert i < j
        [left, right] = [Enum.fetch!(groups, i), Enum.fetch!(groups, j)]
        rest = groups |> List.delete_at(j) |> List.delete_at(i)
        letters = Enum.uniq(left ++ right)

        {cost + Enum.product(Enum.map(letters, &sizes[&1])),
         rest ++ [summed(letters, rest, output)]}
      end)

    cost
  end

  defp summed(letters, others, output),
    do:
      letters
      |> Enum.uniq()
      |> Enum.filter(&(&1 in output or Enum.any?(others, fn other -> &1 in other end)))

  defp every_path(1), do: [[]]

  defp every_path(count) do
    for i <- 0..(count - 2),
        j <- (i + 1)..(count - 1),
        path <- every_path(count - 1),
        do: [{i, j} | path]
  end

  defp random(count) do
    letters = Enum.take(?a..?f, Enum.random(2..6))
    sizes = Map.new(letters, &{&1, Enum.random(2..9)})
    groups = for _ <- 1..count, do: Enum.take_random(letters, Enum.random(0..3))
    used = groups |> Enum.concat() |> Enum.uniq()
    {groups, Enum.take_random(used, Enum.random(0..3)), sizes}
  end

  test "one operand and two leave nothing to choose" do
    assert Path.find([~c"ii"], ~c"", %{?i => 3}) == []
    assert Path.find([~c"ij", ~c"jk"], ~c"ik", %{?i => 2, ?j => 3, ?k => 4}) == [{0, 1}]
  end

  test "matrices are multiplied in the cheaper order" do
    # 10·100·5 + 10·5·50 against 100·5·50 + 10·100·50.
    sizes = %{?a => 10, ?b => 100, ?c => 5, ?d => 50}
    {path, groups, output} = find("ab,bc,cd->ad", sizes)
    assert path == [{0, 1}, {0, 1}]
    assert cost(path, groups, output, sizes) == 7500

    # A vector is multiplied first, wherever it stands.
    sizes = %{?a => 50, ?b => 50, ?c => 50}
    assert {[{1, 2}, {0, 1}], _, _} = find("ab,bc,c->a", sizes)
  end

  test "the outer product comes first where it is the smaller one" do
    sizes = %{?a => 2, ?b => 2, ?c => 100, ?d => 100}
    {path, groups, output} = find("a,b,abcd->cd", sizes)
    assert cost(path, groups, output, sizes) == 4 + 40_000
  end

  test "up to six operands no order is cheaper" do
    :rand.seed(:exsss, 5)

    for count <- [3, 3, 3, 4, 4, 5, 5, 6], _ <- 1..8 do
      {groups, output, sizes} = random(count)
      path = Path.find(groups, output, sizes)
      least = every_path(count) |> Enum.map(&cost(&1, groups, output, sizes)) |> Enum.min()
      assert cost(path, groups, output, sizes) == least
    end
  end

  test "more operands are contracted pair by pair, cheaper than all at once" do
    :rand.seed(:exsss, 6)

    for count <- 7..12, _ <- 1..10 do
      {groups, output, sizes} = random(count)
      path = Path.find(groups, output, sizes)

      everything =
        groups |> Enum.concat() |> Enum.uniq() |> Enum.map(&sizes[&1]) |> Enum.product()

      assert cost(path, groups, output, sizes) <= everything * (count - 1)
    end

    # Ten matrices of 10 x 10 and a vector: from the vector on, 100 each.
    letters = Enum.to_list(?a..?k)
    sizes = Map.new(letters, &{&1, 10})
    groups = Enum.chunk_every(letters, 2, 1, :discard) ++ [~c"k"]
    assert groups |> Path.find(~c"a", sizes) |> cost(groups, ~c"a", sizes) == 1000
  end
end
