Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.PointerTest do
  # Addresses of arrays, and arrays from addresses: what can be read, and what cannot.
  use NativeCase, async: true

  import Bitwise

  describe "address" do
    test "is that of the array's bytes, and stays" do
      x = run({:add, {:arange, 0, 20_000, 1, :s32}, {:full, [], 1, :s32}})
      address = Native.address(x)
      assert Native.address(x) == address

      assert address |> Native.from_address([20_000], :s32) |> numbers() ==
               Enum.to_list(1..20_000)
    end

    test "of a view is that of a row-major copy, which stays as long as the view" do
      x = run({:transpose, {:reshape, {:arange, 0, 6, 1, :u16}, [2, 3]}, [1, 0]})
      address = Native.address(x)
      # What was freed would be used again by these.
      Native.eval(for i <- 1..50, do: run({:full, [6], i, :u16}))
      :erlang.garbage_collect()
      assert Native.address(x) == address
      assert numbers(Native.from_address(address, [3, 2], :u16)) == [0, 3, 1, 4, 2, 5]
      assert numbers(x) == [0, 3, 1, 4, 2, 5]
    end

    test "of a slice begins where the slice does" do
      x = run({:arange, 0, 100, 1, :u8})
      part = run({:slice, x, [7], [12], [1]})
      Native.eval(x)
      assert numbers(Native.from_address(Native.address(part), [5], :u8)) == [7, 8, 9, 10, 11]
    end

    test "of many processes at once is one" do
      x = run({:transpose, {:reshape, {:arange, 0, 10_000, 1, :s32}, [100, 100]}, [1, 0]})

      addresses =
        for(_ <- 1..50, do: Task.async(fn -> Native.address(x) end)) |> Task.await_many(:infinity)

      assert [address] = Enum.uniq(addresses)
      assert numbers(Native.from_address(address, [10_000], :s32)) == numbers(x)
    end

    test "of what fails is the failure" do
      assert_raise Emily.Error, fn -> Native.address(run({:inv, {:full, [3, 3], 0, :f32}})) end
    end
  end

  describe "from_address" do
    test "copies: what becomes of the memory is nothing to the array" do
      copy =
        Task.await(
          Task.async(fn ->
            x = run({:full, [300_000], 7, :u8})
            Native.from_address(Native.address(x), [300_000], :u8)
          end),
          :infinity
        )

      Native.eval(for i <- 1..20, do: run({:full, [300_000], i, :u8}))
      assert Native.to_binary(copy) == :binary.copy(<<7>>, 300_000)
    end

    test "reads sizes around those of a pipe" do
      x = run({:astype, {:arange, 0, 200_001, 1, :s32}, :u16})
      address = Native.address(x)
      bytes = Native.to_binary(x)

      for size <- [1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 400_002] do
        read = Native.to_binary(Native.from_address(address, [size], :u8))
        assert read == binary_part(bytes, 0, size)
      end
    end

    test "refuses what is not readable" do
      # The first page, the kernel's half, what no 48 bits reach, and the last address.
      for address <- [0, 1, 4095, 1 <<< 47, 0xFFFF800000000000, 1 <<< 63, (1 <<< 64) - 1],
          {shape, type} <- [{[], :u8}, {[1000], :f32}, {[1000, 1000], :f64}] do
        assert_raise ArgumentError, ~r/^from_address: /, fn ->
          Native.from_address(address, shape, type)
        end
      end
    end

    test "refuses what ends behind the memory that is mapped" do
      address = Native.address(run({:full, [16], 1, :u8}))
      size = 1 <<< 31
      limit = Native.memory().limit

      if size * 8 < limit do
        # 16 GB that begin in mapped memory. Not all of it can be.
        assert_raise ArgumentError, ~r/cannot be read/, fn ->
          Native.from_address(address, [size - 1, 8], :u8)
        end
      end

      assert_raise ArgumentError, ~r/bytes of memory/, fn ->
        Native.from_address(address, [1 <<< 30, 1 <<< 20], :u8)
      end
    end

    test "refuses what is no address, no shape and no type" do
      for address <- [-1, 1 <<< 64, nil, 1.0, "1", :a, self(), make_ref(), [], {1}] do
        assert_raise ArgumentError, ~r/from_address: expected an address/, fn ->
          Native.from_address(address, [1], :u8)
        end
      end

      for shape <- [[-1], [0], [1 <<< 31], [1 <<< 64], [1.0], [nil], [1 | 2], {:a}, nil, 1, %{}] do
        assert_raise ArgumentError, ~r/^from_address: /, fn ->
          Native.from_address(4096, shape, :u8)
        end
      end

      for type <- [nil, :f8, "u8", 1, {:u, 8}] do
        assert_raise ArgumentError, ~r/is no type/, fn -> Native.from_address(4096, [1], type) end
      end

      for device <- [nil, :tpu, 1, make_ref()] do
        assert_raise ArgumentError, fn -> Native.from_address(4096, [1], :u8, device) end
      end
    end

    test "leaves no descriptor open" do
      if File.dir?("/proc/self/fd") do
        open = fn -> length(File.ls!("/proc/#{System.pid()}/fd")) end
        x = run({:full, [8], 1, :u8})
        address = Native.address(x)
        before = open.()

        for _ <- 1..500 do
          Native.from_address(address, [8], :u8)
          assert_raise ArgumentError, fn -> Native.from_address(0, [8], :u8) end
        end

        # Other tests may open some meanwhile.
        assert open.() - before < 300
      end
    end
  end
end
