defmodule Emily.AttackTest do
  # A few cases of each part of bin/attack, in this VM, so that the parts do not rot; and that what ends a VM is told.
  # Types that MLX lacks are among the cases, and the suite forbids fallbacks: not beside other tests.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Attack.Campaign

  @moduletag :tmp_dir

  setup do
    before = Application.get_env(:emily, :fallback)
    Application.put_env(:emily, :fallback, :silent)
    on_exit(fn -> Application.put_env(:emily, :fallback, before) end)
  end

  test "hostile calls", %{tmp_dir: folder} do
    ExUnit.CaptureIO.capture_io(:stderr, fn ->
      assert Campaign.here(Attack.Calls, 18, folder, 1..400) == []
    end)
  end

  test "each operation of the binding has a row" do
    table = File.read!("native/emily_mlx/src/ops/table.rs")

    names =
      for [_, name] <- Regex.scan(~r/^ +([A-Z]\w+)(?: lapack)? =>/m, table),
          do: name |> Macro.underscore() |> String.to_atom()

    assert names -- Map.keys(Attack.Calls.Operations.signatures()) == []
  end

  # Jason, which comes with Bumblebee, writes some of them.
  if Code.ensure_loaded?(Jason) do
    test "hostile files", %{tmp_dir: folder} do
      assert Campaign.here(Attack.Files, 18, folder, 1..300) == []
    end
  end

  test "wrong numbers", %{tmp_dir: folder} do
    assert Campaign.here(Attack.Numbers, 18, folder, 1..3) == []
  end

  test "a case of which a VM dies is told by its number, and the others run", %{tmp_dir: folder} do
    options = %{seed: 1, seconds: 600, folder: folder}

    output =
      capture_io(fn ->
        result = Campaign.run(Emily.AttackDying, options, workers: 1, cases: 8)
        send(self(), result)
      end)

    assert_received %{cases: 8, faults: faults}
    assert [dead, told] = Enum.sort_by(faults, &(&1 =~ "a fault"))
    assert dead =~ ~s(1 x the VM: {:signal, 9})
    assert dead =~ "case 1000000003 of seed 1: {:signal, 9}; alone: {:signal, 9}"
    assert dead =~ "the case 1000000003"
    assert told =~ "1 x a fault\ncase 1000000005: of five"
    assert output =~ "the VM"
  end
end
