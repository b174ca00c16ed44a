Code.require_file("support/native_case.exs", __DIR__)
Code.require_file("support/settled_memory.exs", __DIR__)

defmodule Emily.Native.MemoryTest do
  # The allocator's figures are one for the whole system, so nothing runs beside these tests.
  use NativeCase, async: false

  @megabyte 1_048_576

  # The heap of a process that has ended is freed a little after its answer came.
  defp assert_back_at(before, tries \\ 6000) do
    unless abs(SettledMemory.active() - before) < 65_536 do
      if tries == 0, do: flunk("#{SettledMemory.active() - before} bytes more than before")
      Process.sleep(10)
      assert_back_at(before, tries - 1)
    end
  end

  defp wait_until(is_true, tries \\ 6000) do
    unless is_true.() do
      if tries == 0, do: flunk("it does not come: #{inspect(Native.memory())}")
      Process.sleep(10)
      wait_until(is_true, tries - 1)
    end
  end

  # A process's garbage is gone with the process.
  defp in_process(work), do: work |> Task.async() |> Task.await(:infinity)

  describe "large binaries" do
    test "refer to the array's memory: reading copies nothing" do
      array = run({:full, [8 * @megabyte], 7, :u8})
      Native.eval(array)
      before = {:erlang.memory(:binary), Native.memory().active}
      binaries = for _ <- 1..10, do: Native.to_binary(array)

      {binary, active} = before
      assert Enum.uniq(Enum.map(binaries, &byte_size/1)) == [8 * @megabyte]
      assert :erlang.memory(:binary) - binary < @megabyte
      assert Native.memory().active - active < @megabyte
      assert Enum.all?(binaries, &(:binary.last(&1) == 7))
    end

    test "stay right when the array and all else is garbage" do
      binary =
        in_process(fn ->
          bytes = for i <- 0..(@megabyte - 1), into: <<>>, do: <<rem(i * 7, 251)>>
          x = Native.from_binary(bytes, [@megabyte], :u8)
          Native.to_binary(run({:add, x, {:full, [], 1, :u8}}))
        end)

      SettledMemory.active()
      # What is freed would be used again by these.
      others = for i <- 1..20, do: run({:full, [@megabyte], i, :u8})
      Native.eval(others)
      assert binary == for(i <- 0..(@megabyte - 1), into: <<>>, do: <<rem(i * 7, 251) + 1>>)
    end

    test "keep the memory as long as they or parts of them live" do
      before = SettledMemory.active()

      part =
        in_process(fn ->
          array = run({:full, [4 * @megabyte], 3, :u8})
          binary_part(Native.to_binary(array), 100, 1000)
        end)

      assert_back_at(before + 4 * @megabyte)
      assert part == :binary.copy(<<3>>, 1000)
      copy = :binary.copy(part)
      assert byte_size(copy) == 1000
    end

    # What a GPU sorts so soon is seen by nobody.
    @tag :cpu
    test "that are written to yet are freed once they are, whoever has left" do
      x = run({:sin, {:arange, 0, 4 * @megabyte, 1, :f32}})
      Native.eval(x)
      before = SettledMemory.active()

      are_held =
        for _ <- 1..20 do
          {_, left} = spawn_monitor(fn -> Native.async_eval([run({:sort, x, 0, false})]) end)
          assert_receive {:DOWN, ^left, _, _, :normal}
          is_held = Native.memory().active - before >= 16 * @megabyte
          assert_back_at(before)
          is_held
        end

      assert Enum.any?(are_held)
    end

    test "of a view are freed with it" do
      before = SettledMemory.active()

      in_process(fn ->
        x = run({:full, [1024, 1024], 3, :u8})
        for _ <- 1..20, do: Native.to_binary(run({:transpose, x, [1, 0]}))
      end)

      assert_back_at(before)
    end

    test "are copied once when they come in" do
      bytes = :binary.copy(<<5>>, 16 * @megabyte)
      before = SettledMemory.active()
      array = Native.from_binary(bytes, [16 * @megabyte], :u8)
      assert_in_delta Native.memory().active - before, 16 * @megabyte, 65_536
      assert Native.to_binary(array) == bytes
    end
  end

  describe "memory is back where it began" do
    test "after 10,000 arrays made and dropped" do
      in_process(fn -> churn(100) end)
      before = SettledMemory.active()
      in_process(fn -> churn(10_000) end)
      assert_back_at(before)
    end

    test "after 10,000 arrays were made, computed, read and dropped" do
      round = fn _ ->
        x = Native.from_binary(:binary.copy(<<1>>, 8192), [8192], :u8)
        <<2, _::binary>> = Native.to_binary(run({:add, x, x}))
      end

      in_process(fn -> Enum.each(1..100, round) end)
      before = SettledMemory.active()
      in_process(fn -> Enum.each(1..10_000, round) end)
      assert_back_at(before)
    end

    test "after failures" do
      round = fn _ ->
        assert_raise Emily.Error, fn -> run({:inv, {:full, [32, 32], 0, :f32}}) end
        assert_raise Emily.Error, fn -> run({:reshape, {:full, [1000], 0, :f32}, [2]}) end
      end

      in_process(fn -> Enum.each(1..20, round) end)
      before = SettledMemory.active()
      in_process(fn -> Enum.each(1..1_000, round) end)
      assert_back_at(before)
    end

    test "after decompositions that nobody reads" do
      round = fn _ -> Native.run([{:qr, {:full, [64, 64], 1.0, :f32}}]) end
      before = SettledMemory.active()
      in_process(fn -> Enum.each(1..1_000, round) end)
      assert_back_at(before)
    end

    test "after 100 streams" do
      use_one = fn _ -> Native.item(run({:exp, scalar(0.0)}, Native.stream_new(:cpu))) end
      before = SettledMemory.active()
      in_process(fn -> Enum.each(1..100, use_one) end)
      assert_back_at(before)
    end

    defp churn(rounds) do
      for _ <- 1..rounds do
        x = Native.from_binary(:binary.copy(<<0>>, 4096), [32, 32], :f32)
        [_, _] = Native.run([{:add, x, x}, {:sum, {:matmul, x, x}, [0, 1], false}])
      end
    end
  end

  test "a loop that never reads stays bounded" do
    one = run({:full, [256], 1.0, :f32})
    Native.eval(one)

    # The most that is held on the way, beyond what was held before.
    {active, beam} =
      in_process(fn ->
        {active, beam} = {SettledMemory.active(), :erlang.memory(:total)}
        Native.reset_peak_memory()

        {x, beams} =
          Enum.reduce(1..100_000, {one, []}, fn i, {x, beams} ->
            x = run({:add, x, one})
            {x, if(rem(i, 10_000) == 0, do: [:erlang.memory(:total) | beams], else: beams)}
          end)

        assert hd(numbers(x)) == 100_001.0
        {Native.memory().peak - active, Enum.max(beams) - beam}
      end)

    # 100,000 arrays of a kilobyte would be 100 MB.
    assert active < 50 * @megabyte
    assert beam < 100 * @megabyte
  end

  describe "the figures" do
    test "follow what is allocated and freed" do
      before = SettledMemory.active()
      Native.reset_peak_memory()
      array = run({:full, [4 * @megabyte], 1, :u8})
      assert Native.memory().active - before < @megabyte
      Native.eval(array)
      figures = Native.memory()
      assert_in_delta figures.active - before, 4 * @megabyte, 65_536
      assert figures.peak >= figures.active
      assert figures.limit > 0
      assert Native.nbytes(array) == 4 * @megabyte
    end

    test "of the cache fall to nothing when it is cleared" do
      in_process(fn -> Native.eval(run({:full, [2 * @megabyte], 1, :u8})) end)
      Native.item(run({:exp, scalar(0.0)}))
      assert Native.clear_cache() == :ok
      assert Native.memory().cache < @megabyte
    end

    if Enum.all?(Native.devices(), &(&1 == :cpu)) and :os.type() == {:unix, :linux} do
      test "of the cache have large memory, which the next array of its size takes" do
        Native.clear_cache()
        filled = fn size, value -> run({:full, [size * @megabyte], value, :u8}) end
        in_process(fn -> Native.eval(filled.(40, 1)) end)
        wait_until(fn -> Native.memory().cache >= 40 * @megabyte end)

        in_process(fn ->
          array = filled.(40, 2)
          Native.eval(array)
          assert Native.memory().cache < @megabyte
          bytes = Native.to_binary(array)
          assert {:binary.first(bytes), :binary.last(bytes)} == {2, 2}
        end)

        wait_until(fn -> Native.memory().cache >= 40 * @megabyte end)
        # One of another size has it given back.
        in_process(fn -> Native.eval(filled.(50, 3)) end)
        wait_until(fn -> Native.memory().cache >= 50 * @megabyte end)
        assert Native.memory().cache < 51 * @megabyte
        assert Native.clear_cache() == :ok
        assert Native.memory().cache < @megabyte
      end

      test "of the cache stay below its limit" do
        Native.clear_cache()
        before = Native.set_cache_limit(100 * @megabyte)
        on_exit(fn -> Native.set_cache_limit(before) end)

        in_process(fn ->
          Native.eval(for i <- 1..3, do: run({:full, [40 * @megabyte], i, :u8}))
        end)

        wait_until(fn -> Native.memory().cache >= 80 * @megabyte end)
        assert Native.memory().cache < 100 * @megabyte
        assert Native.set_cache_limit(1) == 100 * @megabyte
        assert Native.memory().cache < @megabyte
      end
    end

    test "of the peak are set back" do
      in_process(fn -> Native.eval(run({:full, [8 * @megabyte], 1, :u8})) end)
      SettledMemory.active()
      assert Native.memory().peak >= 8 * @megabyte
      assert Native.reset_peak_memory() == :ok
      assert Native.memory().peak < 8 * @megabyte + Native.memory().active
    end
  end

  describe "limits" do
    test "are set, told and put back" do
      limit = Native.memory().limit
      on_exit(fn -> Native.set_memory_limit(limit) end)
      assert Native.set_memory_limit(limit - 1) == limit
      assert Native.memory().limit == limit - 1
      assert Native.set_memory_limit(limit) == limit - 1
    end

    test "of no cache keep none" do
      before = Native.set_cache_limit(0)
      on_exit(fn -> Native.set_cache_limit(before) end)
      Native.clear_cache()
      in_process(fn -> Native.eval(run({:full, [2 * @megabyte], 1, :u8})) end)
      SettledMemory.active()
      assert Native.memory().cache < @megabyte
      assert Native.set_cache_limit(before) == 0
    end

    test "that are too low let work go on" do
      limit = Native.set_memory_limit(1)
      on_exit(fn -> Native.set_memory_limit(limit) end)
      assert Native.item(run({:sum, {:full, [1000], 1, :s32}, [0], false})) == 1000
    end
  end
end
