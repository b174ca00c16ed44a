defmodule Attack.DeathTest do
  # A few cases of each scene of attack/death.exs.
  use ExUnit.Case, async: true

  test "what is left goes on" do
    counts = [killed: 50, endings: 1, restarts: 2, loads: 1, nodes: 1, hungry: 5]
    assert %{faults: []} = Attack.Death.run(%{seed: 1, seconds: 60}, counts)
  end
end
