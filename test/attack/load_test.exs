defmodule Attack.LoadTest do
  # A few seconds of attack/load.exs, without its bound of time.
  use ExUnit.Case, async: true

  test "results under load are right" do
    answer = Attack.Load.run(%{seed: 1, seconds: 2}, seconds: 2, rounds: 300, shapes: 100)
    assert answer.cases > 400
    # How late ticks are is said by the machine.
    assert Enum.reject(answer.faults, &(&1 =~ "a tick is late")) == []
  end
end
