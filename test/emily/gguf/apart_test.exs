defmodule Emily.GGUF.ApartTest do
  use ExUnit.Case, async: true

  alias Emily.GGUF.Apart

  defp messages, do: self() |> Process.info(:messages) |> elem(1)

  test "answers early and late, from another process" do
    apart = Apart.start(fn -> {{:early, self()}, 20} end, &{:late, self(), &1 + 1})
    assert {:early, pid} = Apart.early(apart)
    assert pid != self()
    assert Apart.late(apart) == {:late, pid, 21}
    Apart.stop(apart)
    assert messages() == []
    refute Process.alive?(pid)
  end

  test "what is raised early is raised here" do
    apart = Apart.start(fn -> raise ArgumentError, "no file" end, & &1)
    assert_raise ArgumentError, "no file", fn -> Apart.early(apart) end
    Apart.stop(apart)
    assert messages() == []
  end

  test "so is what is raised late, with where it was" do
    apart = Apart.start(fn -> {:early, 1} end, &div(&1, 0))
    assert Apart.early(apart) == :early

    trace =
      try do
        Apart.late(apart)
      rescue
        ArithmeticError -> __STACKTRACE__
      end

    assert Enum.any?(trace, fn {module, _, _, _} -> module == Apart end)
    Apart.stop(apart)
    assert messages() == []
  end

  test "one that is killed ends the caller as a link would" do
    apart = Apart.start(fn -> {self(), nil} end, fn nil -> Process.sleep(:infinity) end)
    Process.exit(Apart.early(apart), :kill)
    assert catch_exit(Apart.late(apart)) == :killed
  end

  test "what is stopped leaves nothing behind" do
    me = self()

    apart =
      Apart.start(
        fn ->
          send(me, :begun)
          {:early, nil}
        end,
        fn nil -> Process.sleep(:infinity) end
      )

    assert_receive :begun
    Apart.stop(apart)
    assert messages() == []
    Process.sleep(10)
    assert messages() == []
    refute Process.alive?(apart.pid)
  end
end
