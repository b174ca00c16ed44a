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

  # For what is larger than what it is made of, or is padded by a number of another type, Nx.BinaryBackend has no memory.
  test "no call and no program is drawn that Nx.BinaryBackend cannot compute", %{tmp_dir: folder} do
    assert Campaign.here(Attack.Calls, 30134, folder, [2_000_004_152, 1_000_006_438]) == []
    assert Campaign.here(Attack.Calls, 30131, folder, [1_000_005_395, 2_000_032_225]) == []
    assert Campaign.here(Attack.Numbers, 2626, folder, [2_000_000_036, 2_000_002_749]) == []
    assert Campaign.here(Attack.Numbers, 30135, folder, [1_000_000_274]) == []
  end

  test "numbers that were different", %{tmp_dir: folder} do
    numbers = [1_000_001_773, 2_000_002_858, 2_000_001_024]
    assert Campaign.here(Attack.Numbers, 30136, folder, numbers) == []

    # A product of complex numbers, integers of 64 bits beside f64, and what is complex where Nx says f64.
    numbers = [2_000_000_128, 2_000_000_680, 1_000_002_417]
    assert Campaign.here(Attack.Numbers, 30137, folder, numbers) == []
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
