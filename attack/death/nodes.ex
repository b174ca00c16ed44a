defmodule Attack.Death.Nodes do
  @moduledoc false
  # Two nodes share a serving, and one is lost amid work.

  import Attack.Scene, only: [fault: 1, count: 1]

  alias Emily.Nodes

  # How many ask at once.
  @asking 16

  @doc "Loses a node as many times: who asked is answered or told, and the node that is left answers everybody."
  def lost({seed, times}) do
    :rand.seed(:exsss, seed)
    {here, here_node} = Nodes.start!(:here)
    Nodes.call(here, Nodes, :serve, [])
    for _ <- 1..times//1, do: lose(here, here_node)
    count(times)
  end

  defp lose(here, here_node) do
    {there, there_node} = Nodes.start!(:there)
    Nodes.call(there, Nodes, :serve, [])
    Nodes.call(here, Nodes, :join, [there_node])
    system_pid = Nodes.call(there, System, :pid, [])
    Process.flag(:trap_exit, true)
    asking = for _ <- 1..@asking, do: Task.async(fn -> ask(here, 50, []) end)
    Process.sleep(:rand.uniform(200))
    {_, 0} = System.cmd("kill", ["-KILL", system_pid])

    answers = asking |> Task.await_many(300_000) |> List.flatten()
    for {:wrong, text} <- answers, do: fault(text)
    if Enum.count(answers, &(&1 == :right)) == 0, do: fault("nobody was answered")

    # By then the other's end is known, to those who choose a serving too: the connection is gone before these are told.
    wait_for_loss(here, here_node, 600)

    for answer <- ask(here, 20, []),
        answer != :right,
        do: fault("after #{there_node} was lost: #{inspect(answer)}")

    if Nodes.call(here, Nodes, :ask, [[1]]) != {here_node, [3]}, do: fault("another node answers")
  end

  defp wait_for_loss(here, here_node, attempts) do
    cond do
      Nodes.call(here, Nodes, :serving, []) == [here_node] -> :ok
      attempts == 0 -> fault("a lost node is not missed")
      true -> Process.sleep(100) && wait_for_loss(here, here_node, attempts - 1)
    end
  end

  defp ask(_here, 0, answers), do: answers

  defp ask(here, count, answers) do
    n = Enum.random(1..1000)

    answer =
      try do
        Nodes.call(here, Nodes, :ask, [[n], :distributed])
      catch
        kind, reason -> {:told, kind, reason}
      else
        {_node, [result]} when result == 2 * n + 1 -> :right
        other -> {:wrong, "#{inspect(other)} of #{n}"}
      end

    ask(here, count - 1, [answer | answers])
  end
end
