defmodule Emily.BackendTest do
  use Emily.BackendCase, async: true

  doctest Emily.Backend
  doctest Emily.Lower

  describe "options" do
    test "a device that is there is honoured" do
      assert Emily.Backend.init(device: :cpu) == [device: :cpu]
      assert Emily.Backend.init([]) == [device: Emily.Native.default_device()]
      assert Nx.tensor(1, backend: {Emily.Backend, device: :cpu}).data.device == :cpu
    end

    test "anything else is refused" do
      assert_raise ArgumentError,
                   ~r/:device must be :cpu, :gpu or \{:gpu, index\}, got: :tpu/,
                   fn ->
                     Emily.Backend.init(device: :tpu)
                   end

      assert_raise ArgumentError, fn -> Emily.Backend.init(devise: :cpu) end

      unless :gpu in Emily.Native.devices() do
        assert_raise ArgumentError, ~r/EMILY_MLX=cuda12/, fn ->
          Emily.Backend.init(device: :gpu)
        end

        assert_raise ArgumentError, fn ->
          Nx.tensor([1], backend: {Emily.Backend, device: :gpu})
        end

        assert_raise ArgumentError, fn -> Nx.default_backend({Emily.Backend, device: :gpu}) end
      end
    end
  end

  describe "options that there are none of" do
    @unknown {Emily.Backend, client: :cuda}
    @message ~r/unknown keys \[:client\] in \[client: :cuda\], the allowed keys are: \[:device\]/

    for {name, call} <- [
          {"Nx.default_backend", quote(do: Nx.default_backend(@unknown))},
          {"a number", quote(do: Nx.tensor(1, backend: @unknown))},
          {"a list", quote(do: Nx.tensor([1.0, 2.0], backend: @unknown))},
          {"NaN", quote(do: Nx.tensor(:nan, backend: @unknown))},
          {"a type that MLX lacks", quote(do: Nx.tensor(1, type: :f8, backend: @unknown))},
          {"a list of a type that MLX lacks",
           quote(do: Nx.tensor([1], type: :f8, backend: @unknown))},
          {"iota", quote(do: Nx.iota({2, 3}, axis: 1, backend: @unknown))},
          {"eye", quote(do: Nx.eye(2, backend: @unknown))},
          {"from_binary", quote(do: Nx.from_binary(<<1, 2>>, :u8, backend: @unknown))},
          {"backend_copy", quote(do: Nx.backend_copy(Nx.tensor([1]), @unknown))},
          {"backend_transfer", quote(do: Nx.backend_transfer(Nx.tensor([1]), @unknown))},
          {"from Emily's", quote(do: Nx.backend_copy(on_emily(Nx.tensor([1])), @unknown))},
          {"from_pointer", quote(do: Nx.from_pointer(@unknown, %Nx.Pointer{}, :u8, {1}))},
          {"the callback constant",
           quote(do: Emily.Backend.constant(Nx.template({}, :f32), 1, client: :cuda))},
          {"the callback backend_copy",
           quote(
             do: Emily.Backend.backend_copy(on_emily(Nx.tensor(1)), Emily.Backend, client: :cuda)
           )}
        ] do
      test "are refused: #{name}" do
        Process.put(Emily.Fallback, :silent)
        assert_raise ArgumentError, @message, fn -> unquote(call) end
      end
    end
  end

  describe "callbacks" do
    test "every callback of Nx.Backend is there" do
      Code.ensure_loaded!(Emily.Backend)

      for {name, arity} <-
            Nx.Backend.behaviour_info(:callbacks) --
              Nx.Backend.behaviour_info(:optional_callbacks) do
        assert function_exported?(Emily.Backend, name, arity), "#{name}/#{arity}"
      end
    end
  end

  describe "moving" do
    property "there and back" do
      check all(type <- type(all_types()), shape <- shape(), x <- tensor(type, shape)) do
        moved = Nx.backend_transfer(x, Emily.Backend)
        assert %Emily.Backend{device: _} = moved.data
        assert Nx.backend_transfer(moved, Nx.BinaryBackend) == x
        assert Nx.backend_transfer(moved) == x
        assert Nx.backend_copy(moved, Emily.Backend) |> Nx.backend_copy(Nx.BinaryBackend) == x
      end
    end

    test "to_binary with a limit" do
      x = Nx.iota({3, 4}, type: :s16, backend: Emily.Backend)
      assert Nx.to_binary(x, limit: 3) == <<0::16-native, 1::16-native, 2::16-native>>
      assert Nx.to_flat_list(x, limit: 2) == [0, 1]
      assert Nx.to_flat_list(Nx.vectorize(x, :rows), limit: 5) == [0, 1, 2, 3, 4]
      assert Nx.to_binary(Nx.transpose(x), limit: 2) == <<0::16-native, 4::16-native>>
    end

    test "backend_deallocate answers" do
      x = Nx.tensor([1, 2], backend: Emily.Backend)
      assert Nx.backend_deallocate(x) == :ok
    end

    test "large binaries survive their tensor" do
      binary =
        {Emily.Backend, device: :cpu}
        |> then(&Nx.iota({1_000_000}, type: :s32, backend: &1))
        |> Nx.add(1)
        |> Nx.to_binary()

      :erlang.garbage_collect()
      assert <<1::32-native, 2::32-native, _::binary>> = binary
      assert byte_size(binary) == 4_000_000
    end

    test "binaries of the wrong size are refused" do
      assert_raise ArgumentError, fn ->
        Emily.Backend.from_binary(Nx.template({3}, :f32), <<1, 2, 3>>, [])
      end
    end

    test "tensors of other backends and numbers take part" do
      x = Nx.tensor([1, 2], backend: Emily.Backend)
      assert_equal(Nx.add(x, 1), Nx.tensor([2, 3]))
      assert_equal(Nx.add(2.5, x), Nx.tensor([3.5, 4.5]))
      assert_equal(Nx.add(Nx.tensor([10, 20]), x), Nx.tensor([11, 22]))
      assert_equal(Nx.concatenate([Nx.tensor([0]), x]), Nx.tensor([0, 1, 2]))
      assert_equal(Nx.multiply(x, Nx.tensor(:nan)), Nx.tensor([:nan, :nan]))

      assert_equal(
        Nx.multiply(x, Nx.tensor(0.5, type: :bf16)),
        Nx.tensor([0.5, 1.0], type: :bf16)
      )

      assert_equal(
        Nx.multiply(x, Complex.new(0, 1)),
        Nx.multiply(Nx.tensor([1, 2]), Complex.new(0, 1))
      )

      assert_equal(Nx.dot(x, Nx.tensor([3, 4])), Nx.tensor(11))
    end
  end

  describe "inspect" do
    test "shows the backend and the device" do
      x = Nx.tensor([1, 2], backend: {Emily.Backend, device: :cpu})
      assert inspect(x) =~ "Emily.Backend<cpu>\n  [1, 2]"
      assert inspect(Nx.vectorize(Nx.stack([x, x]), :rows)) =~ "vectorized[rows: 2]"
      assert inspect(Nx.iota({1000}, backend: Emily.Backend)) =~ "..."
    end
  end

  describe "types" do
    test "f64 on a GPU is refused with a remedy" do
      data = %Emily.Backend{ref: make_ref(), device: :gpu}
      x = %{Nx.template({2}, :f32) | data: data}

      assert_raise ArgumentError, ~r/no f64 on a GPU.*Nx.as_type/s, fn -> Nx.as_type(x, :f64) end
    end
  end

  describe "many processes" do
    test "a hundred at once get their own answers" do
      1..100
      |> Task.async_stream(
        fn n ->
          x = Nx.iota({64}, type: :s64, backend: Emily.Backend)

          for round <- 1..20 do
            sum = x |> Nx.multiply(n) |> Nx.add(round) |> Nx.sum() |> Nx.to_number()
            assert sum == 2016 * n + 64 * round
          end
        end,
        max_concurrency: 100,
        timeout: :infinity
      )
      |> Enum.each(fn {:ok, _} -> :ok end)
    end

    test "one unread graph can be read by many" do
      x = Enum.reduce(1..50, Nx.iota({100}, backend: Emily.Backend), fn _, x -> Nx.add(x, 1) end)

      1..50
      |> Task.async_stream(fn n -> x |> Nx.add(n) |> Nx.sum() |> Nx.to_number() end,
        max_concurrency: 50,
        timeout: :infinity
      )
      |> Enum.with_index(1)
      |> Enum.each(fn {{:ok, sum}, n} -> assert sum == 4950 + 100 * (50 + n) end)
    end
  end
end
