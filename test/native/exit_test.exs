Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.ExitTest do
  use ExUnit.Case, async: true

  # OpenBLAS's threads are at work when the VM ends, in several ways.
  @work """
  alias Emily.Native
  [x] = Native.run([{:full, [1500, 1500], 1.0e-3, :f32}])
  product = fn y -> hd(Native.run([{:matmul, y, x}])) end
  Native.async_eval(Enum.reduce(1..40, x, fn _, y -> product.(y) end))
  """

  for {name, ending} <- [
        {"its last line is done", ""},
        {"it is halted", "System.halt(3)"},
        {"it is stopped", "System.stop(3); Process.sleep(:infinity)"}
      ] do
    test "a VM with work in flight ends when #{name}" do
      task =
        Task.async(fn -> elixir(NativeCase.code_paths() ++ ["-e", @work <> unquote(ending)]) end)

      assert {:ok, {_output, status}} =
               Task.yield(task, NativeCase.limit(60_000)) || Task.shutdown(task, :brutal_kill)

      assert status == unquote(if ending == "", do: 0, else: 3)
    end
  end

  defp elixir(arguments), do: System.cmd("elixir", arguments, stderr_to_stdout: true)
end
