Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.ExhaustionTest do
  # A VM of its own that may take a gigabyte: whatever wants more raises there, and the VM goes on.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  # QEMU's emulation of a process takes no such limit.
  @moduletag :limited

  # Each line of the child's output is the name of a case, and what came of it.
  @prelude """
  alias Emily.Native
  Native.eval(Native.run([{:full, [], 1, :s32}]))
  # What else the VM loads is there before it is limited.
  _ = {Exception.message(%Emily.Error{message: ""}), Regex.run(~r/./, "a"), Enum, String}
  [_, kilobytes] = Regex.run(~r/VmSize:\\s+(\\d+)/, File.read!("/proc/self/status"))
  most = String.to_integer(kilobytes) * 1024 + 1_200_000_000
  {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--as=\#{most}"])

  works = fn ->
    [sum] = Native.run([{:sum, {:arange, 0, 100_000, 1, :s64}, [0], false}])
    4_999_950_000 = Native.item(sum)
  end

  # Other processes' arrays are gone with them.
  attempt = fn name, work ->
    safe = fn ->
      try do
        work.()
      rescue
        error -> {error.__struct__, Exception.message(error)}
      end
    end

    IO.puts("\#{name}: \#{inspect(safe |> Task.async() |> Task.await(:infinity))}")
    works.()
  end

  read = fn expression -> [x] = Native.run([expression]); byte_size(Native.to_binary(x)) end
  one = fn shape, dtype -> {:broadcast_to, {:full, [], 1, dtype}, shape} end
  """

  defp child(body, folder) do
    path = Path.join(folder, "child.exs")
    File.write!(path, @prelude <> body)
    # The C library would reserve addresses for each thread, at times of its choosing.
    opts = [stderr_to_stdout: true, env: [{"MALLOC_ARENA_MAX", "1"}]]
    {output, status} = System.cmd("elixir", NativeCase.code_paths() ++ [path], opts)
    assert status == 0, output

    for line <- String.split(output, "\n", trim: true), into: %{} do
      [name, result] = String.split(line, ": ", parts: 2)
      {name, result}
    end
  end

  defp assert_no_memory(results, names) do
    for name <- names do
      assert results[name] =~ ~r/^{Emily.Error, "\[malloc\] no memory for \d+ bytes: \d+ bytes/,
             "#{name}: #{results[name]}"
    end
  end

  test "results, copies and what is between that memory lacks are errors", %{tmp_dir: folder} do
    results =
      child(
        """
        attempt.("result", fn -> read.({:arange, 0, 2.0e8, 1, :f64}) end)
        attempt.("view", fn -> read.(one.([40_000, 40_000], :u8)) end)
        attempt.("contiguous", fn -> read.({:sum, {:contiguous, one.([40_000, 40_000], :u8)}, [0, 1], false}) end)
        attempt.("address", fn -> [x] = Native.run([one.([40_000, 40_000], :u8)]); Native.address(x) end)
        attempt.("between", fn ->
          numbers = {:arange, 0, 8.0e7, 1, :f64}
          read.({:sum, {:add, numbers, {:flip, numbers, [0]}}, [0], false})
        end)
        attempt.("sort", fn -> read.({:slice, {:sort, one.([400_000_000], :f32), 0, false}, [0], [2], [1]}) end)
        attempt.("fft", fn -> read.({:slice, {:fft, one.([3], :c64), 200_000_000, 0}, [0], [2], [1]}) end)
        attempt.("patches", fn -> read.({:conv, one.([1, 620, 620, 1], :f16), one.([1, 39, 39, 1], :f16), [1, 1], [0, 0], [0, 0], [1, 1], [1, 1], 1, false, false}) end)
        attempt.("windows", fn -> read.({:sum, {:as_strided, {:full, [700, 700], 1, :f32}, [670, 670, 30, 30], [700, 1, 700, 1], 0}, [0, 1, 2, 3], false}) end)
        attempt.("product", fn ->
          x = {:add, one.([10_000, 10_000], :f32), {:arange, 0, 10_000, 1, :f32}}
          # Neither operand lies in a row, so that both are copied.
          strided = {:slice, {:concatenate, [x, x], 1}, [0, 0], [10_000, 20_000], [1, 2]}
          read.({:sum, {:matmul, strided, strided}, [0, 1], false})
        end)
        """,
        folder
      )

    names = ~w(result view contiguous address between sort fft patches windows product)
    assert Enum.sort(Map.keys(results)) == Enum.sort(names)
    assert_no_memory(results, names)
  end

  test "so are many arrays together, and files", %{tmp_dir: folder} do
    file = Path.join(folder, "sparse")
    File.open!(file, [:write, :raw], &:file.pwrite(&1, 1_500_000_000, <<0>>))

    results =
      child(
        """
        block = fn i -> {:add, {:arange, 0, 25_000_000, 1, :f32}, {:full, [], i, :f32}} end
        attempt.("kept", fn -> Native.eval(for i <- 1..30, do: hd(Native.run([block.(i)]))) end)
        attempt.("file", fn -> Native.from_file(#{inspect(file)}, 0, {1_500_000_000}, :u8) end)
        # What nobody holds any more is freed on the way.
        attempt.("dropped", fn ->
          last = Enum.reduce(1..70, hd(Native.run([block.(0)])), fn _, x -> hd(Native.run([{:add, x, x}])) end)
          read.({:slice, last, [1], [2], [1]})
        end)
        # In pieces: the scores of all would take 1.6 GB.
        attempt.("attention", fn ->
          [q] = Native.run([one.([1, 1, 20_000, 2], :f32)])
          bytes = Native.to_binary(Native.attention(q, q, q, scale: 1.0, device: :cpu))
          Enum.uniq(for <<value::float-32-native <- bytes>>, do: Float.round(value, 4))
        end)
        """,
        folder
      )

    assert_no_memory(results, ~w(kept file))
    assert results["dropped"] == "4"
    assert results["attention"] == "[1.0]"
  end
end
