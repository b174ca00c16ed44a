defmodule Emily.Native.GarbageTest do
  use ExUnit.Case

  alias Emily.Native

  @mega 1_048_576

  # The peak belongs to all processes, so that nothing may run beside.
  test "dropped arrays do not pile up, whatever the heap of their process" do
    for words <- [0, 200_000] do
      Task.async(fn ->
        heap = Enum.to_list(1..words//1)
        before = Native.memory().active
        Native.reset_peak_memory()
        Enum.each(1..1000, fn _ -> evaluate_a_megabyte() end)
        assert Native.memory().peak - before < 64 * @mega + 16 * 8 * 8 * words
        assert length(heap) == words
      end)
      |> Task.await(:infinity)
    end
  end

  test "large binaries made into arrays do not pile up" do
    binary = :binary.copy(<<1>>, @mega)
    before = Native.memory().active
    Native.reset_peak_memory()
    Enum.each(1..1000, fn _ -> Native.from_binary(binary, [@mega], :u8, :cpu) end)
    assert Native.memory().peak - before < 64 * @mega
  end

  defp evaluate_a_megabyte do
    [array] = Native.run([{:add, {:full, [@mega], 1, :u8}, {:full, [], 1, :u8}}], :cpu)
    Native.eval(array)
  end
end
