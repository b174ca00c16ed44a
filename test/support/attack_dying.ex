defmodule Emily.AttackDying do
  @moduledoc false
  # Cases of which one ends its VM by a signal, and one is a fault.

  @behaviour Attack.Cases

  @impl true
  def prepare(_seed, _folder), do: nil

  @impl true
  def run(nil, number) do
    case rem(number, 1000) do
      3 ->
        System.cmd("kill", ["-9", System.pid()])
        :ok

      5 ->
        {:fault, "a fault", "of five"}

      _ ->
        :ok
    end
  end

  @impl true
  def describe(nil, number), do: "the case #{number}"
end
