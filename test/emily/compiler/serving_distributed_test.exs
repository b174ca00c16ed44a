defmodule Emily.Compiler.ServingDistributedTest do
  # One serving name on several nodes, each with Emily.
  use ExUnit.Case, async: true

  alias Emily.Nodes

  setup do
    {here, here_node} = Nodes.start_supervised!(:here)
    {there, there_node} = Nodes.start_supervised!(:there)
    %{here: here, there: there, here_node: here_node, there_node: there_node}
  end

  defp serve(peer, streaming \\ false), do: Nodes.call(peer, Nodes, :serve, [streaming])
  defp join(peer, node), do: Nodes.call(peer, Nodes, :join, [node])
  defp ask(peer, numbers, place \\ :any), do: Nodes.call(peer, Nodes, :ask, [numbers, place])

  test "a node without the serving is answered by one that has it", nodes do
    %{here: here, there: there, there_node: there_node} = nodes
    serve(there)
    join(here, there_node)
    assert ask(here, [1, 2, 3]) == {there_node, [3, 5, 7]}

    # Many at once are batched over there.
    asked = for n <- 1..20, do: Task.async(fn -> {n, ask(here, [n, -n])} end)

    for {n, answer} <- Task.await_many(asked, :infinity),
        do: assert(answer == {there_node, [2 * n + 1, 1 - 2 * n]})
  end

  test "two that have it share it", nodes do
    %{here: here, there: there, here_node: here_node, there_node: there_node} = nodes
    for peer <- [here, there], do: serve(peer)
    join(here, there_node)

    # Who has it asks itself, unless it wants any.
    for _ <- 1..3, do: assert(ask(here, [4]) == {here_node, [9]})
    assert ask(there, [4]) == {there_node, [9]}

    # Each is chosen by chance, so one is left out with a chance of 1 to 2^63.
    answers = for _ <- 1..64, do: ask(here, [4], :distributed)

    assert answers |> Enum.uniq() |> Enum.sort() ==
             Enum.sort([{here_node, [9]}, {there_node, [9]}])

    Nodes.call(here, Nodes, :stop, [])
    assert ask(here, [4]) == {there_node, [9]}
  end

  test "hooks stream from one to the other", nodes do
    %{here: here, there: there, there_node: there_node} = nodes
    serve(there, true)
    join(here, there_node)

    assert ask(here, [1, 2]) == [{:doubled, there_node, [2, 4]}, {:batch, there_node, [3, 5]}]
  end

  test "a tensor that is sent as it is says what to do", nodes do
    %{here: here, here_node: here_node, there: there, there_node: there_node} = nodes
    tensor = Nodes.call(there, Nx, :iota, [{3}, [backend: Emily.Backend]])

    remedy =
      ~r/in the memory of the node #{there_node}.*Nx\.backend_copy\(tensor, Nx\.BinaryBackend\)/

    for use <- [
          &Nx.to_binary/1,
          &Nx.backend_copy(&1, Nx.BinaryBackend),
          &Nx.add(&1, 1),
          &Nx.add(Nx.tensor([1, 2, 3], backend: Emily.Backend), &1),
          &Nx.concatenate([&1, &1]),
          &Nx.to_list(&1[0]),
          Nx.Defn.jit(&Nx.multiply(&1, 2), compiler: Emily.Compiler)
        ],
        do: assert_raise(ArgumentError, remedy, fn -> use.(tensor) end)

    assert inspect(tensor) =~ remedy
    assert inspect(Nx.iota({100}, backend: Emily.Backend), limit: 3) =~ "0, 1, 2, ..."

    serve(there)
    join(here, there_node)

    assert Nodes.call(here, Nodes, :ask_unprepared, [[1]]) =~
             "in the memory of the node #{here_node}"

    # Who asks well is answered as before.
    assert ask(here, [1]) == {there_node, [3]}
  end
end
