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
    test "are the CPU and the GPUs by their numbers" do
      assert [:cpu | gpus] = Native.devices()
      assert gpus == Enum.take([:gpu | for(index <- 1..64, do: {:gpu, index})], length(gpus))
      assert Native.default_device() == if(gpus == [], do: :cpu, else: :gpu)
    end

    test "have an index, which of the first need not be said" do
      for device <- [{:cpu, 0} | for(:gpu <- Native.devices(), do: {:gpu, 0})] do
        assert Native.device_info(device) == Native.device_info(elem(device, 0))
        assert Native.item(run({:full, [], 3, :s32}, device)) == 3
        assert Native.item(run({:full, [], 3, :s32}, Native.stream_new(device))) == 3
      end
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
      for device <- [:gpu, {:gpu, 1}, {:gpu, 65_535}] -- Native.devices() do
        name = if device == :gpu, do: "gpu", else: "gpu #{elem(device, 1)}"
        message = ~r/there is no #{name} here: this build of MLX and this machine have cpu/

        for call <- [
              fn -> Native.device_info(device) end,
              fn -> Native.stream_new(device) end,
              fn -> Native.run([{:full, [], 0, :f32}], device) end,
              fn -> Native.from_binary(<<0>>, [], :u8, device) end
            ],
            do: assert_raise(ArgumentError, message, call)
      end

      for other <- [{:cpu, 1}, {:gpu, -1}, {:gpu, 65_536}, {:gpu, 1.0}, {:gpu}, {:tpu, 0}, "gpu"],
          do:
            assert_raise(ArgumentError, ~r/expected :cpu, :gpu, {:gpu, index} or a stream/, fn ->
              Native.device_info(other)
            end)
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
