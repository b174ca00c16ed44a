Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.SystemTest do
  # Devices, streams and MLX's version.
  use NativeCase, async: true

  doctest Emily.Native
  doctest Emily.Native.Expression

  test "the version is that of the library beside the NIF" do
    assert [_, _, _] = Native.mlx_version() |> String.split(".") |> Enum.map(&String.to_integer/1)
  end

  describe "devices" do
    test "are the CPU and what else there is, the fastest last" do
      assert hd(Native.devices()) == :cpu
      assert Native.devices() -- [:cpu, :gpu] == []
      assert Native.default_device() == List.last(Native.devices())
    end

    test "say what they are" do
      for device <- Native.devices() do
        info = Native.device_info(device)
        assert map_size(info) > 0

        assert Enum.all?(info, fn {key, value} ->
                 is_binary(key) and (is_binary(value) or is_integer(value))
               end)
      end
    end

    test "that are not there are refused" do
      for device <- [:cpu, :gpu] -- Native.devices() do
        assert_raise ArgumentError, ~r/#{device}/, fn -> Native.device_info(device) end
        assert_raise ArgumentError, ~r/#{device}/, fn -> Native.stream_new(device) end

        assert_raise ArgumentError, ~r/#{device}/, fn ->
          Native.run([{:full, [], 0, :f32}], device)
        end

        assert_raise ArgumentError, ~r/#{device}/, fn ->
          Native.from_binary(<<0>>, [], :u8, device)
        end
      end
    end
  end

  describe "streams" do
    test "that are closed give what they have computed, and refuse the rest" do
      stream = Native.stream_new(:cpu)
      [computed] = Native.run([{:exp, {:full, [3], 0.0, :f32}}], stream)
      Native.eval(computed)
      [lazy] = Native.run([{:add, computed, computed}], stream)
      assert Native.stream_close(stream) == :ok

      assert Native.item(run({:sum, computed, [0], false}, :cpu)) == 3.0

      for read <- [&Native.to_binary/1, &Native.eval/1, &Native.async_eval/1, &Native.address/1],
          do: assert_raise(Emily.Error, "the stream is closed", fn -> read.(lazy) end)

      # Another stream computes what hangs on it.
      assert Native.item(run({:sum, lazy, [0], false}, :cpu)) == 6.0

      program = Native.Program.compile({[0], [], [{:exp, {:var, 0}}]})

      for call <- [
            fn -> Native.run([{:exp, computed}], stream) end,
            fn -> Native.from_binary(<<0>>, [1], :u8, stream) end,
            fn -> Native.rms_norm(computed, nil, 0.1, stream) end,
            fn -> Native.Program.run(program, [computed], stream) end
          ],
          do: assert_raise(ArgumentError, "the stream is closed", call)

      for wrong <- [:cpu, nil, computed, make_ref()],
          do: assert_raise(ArgumentError, fn -> Native.stream_close(wrong) end)
    end

    test "take the place of a device everywhere" do
      for device <- Native.devices() do
        stream = Native.stream_new(device)
        x = array([1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2], :f32, stream)
        [offset] = Native.run([{:full, [], 0, :s32}], stream)
        [freqs] = Native.run([{:full, [1], 1, :f32}], stream)

        for result <- [
              run({:add, x, x}, stream),
              Native.rms_norm(x, nil, 0.1, stream),
              Native.layer_norm(x, nil, nil, 0.1, stream),
              Native.rope(x, offset, dims: 2, device: stream),
              Native.rope_with_freqs(x, offset, freqs, dims: 2, device: stream),
              Native.attention(x, x, x, scale: 1, device: stream),
              Native.einsum("abcd->abdc", [x], stream)
            ] do
          assert Native.shape(result) == {1, 1, 2, 2}
          assert Enum.all?(numbers(result), &is_float/1)
        end
      end
    end

    test "go on with one another's arrays, computed or not" do
      streams = for _ <- 1..4, do: Native.stream_new(Native.default_device())

      sum =
        for {stream, i} <- Enum.with_index(streams ++ streams, 1), reduce: scalar(0.0) do
          sum -> run({:add, sum, scalar(i / 1)}, stream)
        end

      assert Native.item(sum) == 36.0
      assert Native.item(run({:negative, sum}, hd(streams))) == -36.0
    end

    test "compute what they hold after their reference is gone" do
      array = run({:exp, scalar(0.0)}, Native.stream_new(Native.default_device()))
      :erlang.garbage_collect()
      assert Native.item(array) == 1.0
    end

    test "may be many" do
      results =
        for i <- 1..50 do
          Task.async(fn ->
            Native.item(run({:add, scalar(i / 1), scalar(1.0)}, Native.stream_new(:cpu)))
          end)
        end
        |> Task.await_many(:infinity)

      assert results == for(i <- 1..50, do: i + 1.0)
    end
  end
end
