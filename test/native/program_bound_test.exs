Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.ProgramBoundTest do
  # Programs are counted for the whole VM, so nothing runs beside these tests.
  use NativeCase, async: false

  alias Emily.Native.Program

  # A program that asks its process for a number, and adds one.
  defp asking do
    Program.compile({[], [], [{:add, {:elem, 0, {:call, 0, [], 1}}, {:full, [], 1, :s32}}]})
  end

  defp one(number), do: Native.run([{:full, [], number, :s32}], :cpu)

  defp ask(program, answer) do
    [result] = Program.run(program, [], :cpu, fn 0, [] -> answer.() end)
    Native.item(result)
  end

  defp threads do
    [_, count] = Regex.run(~r/^Threads:\s+(\d+)$/m, File.read!("/proc/self/status"))
    String.to_integer(count)
  end

  test "thousands that wait for their processes have few threads, and all end" do
    program = asking()
    before = threads()
    test = self()

    tasks =
      for number <- 1..2000 do
        Task.async(fn ->
          ask(program, fn ->
            send(test, {:asked, self()})
            receive do: (:answer -> one(number))
          end)
        end)
      end

    # As many as may run have asked, and no more begin.
    first = for _ <- 1..512, do: receive(do: ({:asked, pid} -> pid))
    refute_receive {:asked, _pid}, 500
    assert threads() - before < 600

    Enum.each(first, &send(&1, :answer))
    for _ <- 1..1488, do: receive(do: ({:asked, pid} -> send(pid, :answer)))
    assert Task.await_many(tasks, :infinity) == Enum.to_list(2..2001)
  end

  test "what a call runs has room where all room is taken" do
    program = asking()
    test = self()

    tasks =
      for number <- 1..512 do
        Task.async(fn ->
          ask(program, fn ->
            send(test, {:asked, self()})
            receive do: (:answer -> one(ask(program, fn -> one(number) end)))
          end)
        end)
      end

    # All of them wait before the first answers with a program of its own.
    asked = for _ <- 1..512, do: receive(do: ({:asked, pid} -> pid))
    Enum.each(asked, &send(&1, :answer))
    assert Task.await_many(tasks, :infinity) == Enum.to_list(3..514)
  end

  test "programs within programs are refused where they are too many" do
    program = asking()
    deeper = fn deeper, depth -> one(ask(program, fn -> deeper.(deeper, depth + 1) end)) end
    assert_raise Emily.Error, ~r/no room for one more program/, fn -> deeper.(deeper, 0) end
    # All that they took is free again.
    assert ask(program, fn -> one(1) end) == 2
  end

  test "a process that has run such a program is as before" do
    assert_raise ArgumentError, "no", fn -> ask(asking(), fn -> raise ArgumentError, "no" end) end
    refute Process.get({Program, :answering})
  end
end
