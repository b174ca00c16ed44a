defmodule Emily.PointerTest do
  use Emily.BackendCase, async: true

  import Bitwise

  defp t(numbers, opts \\ []), do: Nx.tensor(numbers, [backend: Emily.Backend] ++ opts)
  defp pointer(fields), do: struct!(Nx.Pointer, [kind: :local] ++ fields)

  property "what a pointer refers to is the tensor" do
    check all(type <- type(all_types()), shape <- shape(0..4), x <- tensor(type, shape)) do
      tensor = on_emily(x)
      pointer = Nx.to_pointer(tensor, mode: :local)
      assert %Nx.Pointer{kind: :local, handle: nil} = pointer
      assert pointer.data_size == byte_size(Nx.to_binary(x))
      assert Nx.to_pointer(tensor) == pointer
      assert_equal(Nx.from_pointer(Emily.Backend, pointer, type, shape), x)
      # The tensor must live until here.
      assert_equal(tensor, x)
    end
  end

  test "names, devices, other types and shapes of the same size" do
    x = t([[1, 2, 3], [4, 5, 6]], type: :s16)
    pointer = Nx.to_pointer(x)
    y = Nx.from_pointer({Emily.Backend, device: :cpu}, pointer, :s16, {3, 2}, names: [:a, nil])
    assert_equal(y, Nx.tensor([[1, 2], [3, 4], [5, 6]], type: :s16, names: [:a, nil]))
    assert y.data.device == :cpu

    z = Nx.from_pointer(Emily.Backend, %{pointer | data_size: nil}, :u16, {2})
    assert_equal(z, Nx.tensor([1, 2], type: :u16))
    assert Nx.to_flat_list(x) == [1, 2, 3, 4, 5, 6]
  end

  test "a vectorised tensor's pointer refers to all of it" do
    x = Nx.vectorize(t([[1, 2], [3, 4]]), :rows)
    pointer = Nx.to_pointer(x)
    assert pointer.data_size == 16
    all = Nx.from_pointer(Emily.Backend, pointer, :s32, {2, 2})
    assert Nx.to_flat_list(all) == [1, 2, 3, 4]
    assert x.vectorized_axes == [rows: 2]
  end

  test "what cannot be read is refused, and ends no VM" do
    # A page that is never mapped, the kernel's half, and beyond.
    for address <- [0, 1, 0xFFFF800000000000, (1 <<< 64) - 1, -1, 1 <<< 64, nil, 1.0, "1", :one],
        shape <- [{}, {2, 3}, {1000, 1000}] do
      assert_raise ArgumentError, ~r/^from_address: /, fn ->
        Nx.from_pointer(Emily.Backend, pointer(address: address), :f32, shape)
      end
    end
  end

  test "sizes that do not fit are refused" do
    x = t([1, 2, 3], type: :u8)
    %{address: address} = Nx.to_pointer(x)

    for size <- [0, -3, 2, 4, 1 <<< 62, 3.0, :three] do
      assert_raise ArgumentError, ~r/shape \{3\} of type u8 takes 3 bytes/, fn ->
        Nx.from_pointer(Emily.Backend, pointer(address: address, data_size: size), :u8, {3})
      end
    end

    for shape <- [{1 <<< 31}, {1 <<< 62}, {1 <<< 30, 1 <<< 30}] do
      assert_raise ArgumentError, ~r/^from_address: /, fn ->
        Nx.from_pointer(Emily.Backend, pointer(address: address), :u8, shape)
      end
    end

    assert Nx.to_flat_list(x) == [1, 2, 3]
  end

  test "types that MLX lacks, unknown options and kinds are refused" do
    x = t([1, 2, 3])
    local = Nx.to_pointer(x)

    for type <- [:c128, :f8_e4m3fn, :s4, :u2], match?({:ok, _}, normalized(type)) do
      assert_raise ArgumentError, ~r/Emily has no type/, fn ->
        Nx.from_pointer(Emily.Backend, %{local | data_size: nil}, type, {1})
      end
    end

    for kind <- [:ipc, :remote, nil] do
      message = if kind == :ipc, do: ~r/no :ipc handles, since/, else: ~r/expected :local or :ipc/
      assert_raise ArgumentError, message, fn -> Nx.to_pointer(x, mode: kind) end

      assert_raise ArgumentError, message, fn ->
        Nx.from_pointer(Emily.Backend, %{local | kind: kind}, :s32, {3})
      end
    end

    assert_raise ArgumentError, ~r/permissions/, fn -> Nx.to_pointer(x, permissions: 0o400) end

    assert_raise ArgumentError, ~r/unknown/, fn ->
      Nx.from_pointer(Emily.Backend, local, :s32, {3}, unknown: 1)
    end

    assert_raise ArgumentError, ~r/expected a %Nx.Pointer/, fn ->
      Nx.from_pointer(Emily.Backend, local.address, :s32, {3})
    end

    assert Nx.to_flat_list(x) == [1, 2, 3]
  end

  defp normalized(type) do
    {:ok, Nx.Type.normalize!(type)}
  rescue
    ArgumentError -> :error
  end
end
