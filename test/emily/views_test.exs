defmodule Emily.ViewsTest do
  # A broadcast takes no memory, whatever its size; what copies it says what the copy would take.
  use Emily.BackendCase, async: true

  defp view(shape), do: Nx.broadcast(Nx.tensor(2.0, backend: Emily.Backend), shape)

  # 16 TB.
  @huge {4_000_000, 1_000_000}

  describe "a view that no memory holds" do
    test "is refused with the figures by what reads or copies the whole" do
      x = view(@huge)

      for read <- [
            &Nx.to_binary/1,
            &Nx.to_flat_list/1,
            &Nx.serialize/1,
            &Nx.to_pointer/1,
            &Nx.backend_copy(&1, Nx.BinaryBackend),
            &Nx.backend_transfer(&1, Nx.BinaryBackend),
            &Nx.to_binary(Nx.transpose(&1)),
            &Nx.exp/1
          ] do
        error = assert_raise ArgumentError, fn -> read.(x) end
        assert error.message =~ ~r/would take 16000000000000 bytes, more than the \d+ bytes/
      end
    end

    # MLX's own kernel for a GPU wants no row.
    test "is an error as the input that a kernel wants in a row" do
      x = @huge |> view() |> Nx.backend_transfer({Emily.Backend, device: :cpu})
      error = assert_raise ArgumentError, fn -> Nx.argmax(x, axis: 1) end
      assert error.message =~ ~r/would take 16000000000000 bytes, more than the \d+ bytes/
      assert Nx.to_number(Nx.sum(Nx.iota({10}, backend: Emily.Backend))) == 45
    end

    test "is inspected, and read in part" do
      x = view(@huge)
      assert inspect(x, limit: 3) =~ "[2.0, 2.0, 2.0, ...]"
      assert Nx.to_binary(x, limit: 2) == <<2.0::float-32-native, 2.0::float-32-native>>
      assert Nx.to_number(x[123][456]) == 2.0
    end
  end

  property "the beginning of a tensor is that of its binary" do
    check all(
            shape <- list_of(integer(1..5), max_length: 4),
            permutation <- StreamData.constant(Enum.to_list((length(shape) - 1)..0//-1)),
            limit <- integer(1..60)
          ) do
      shape = List.to_tuple(shape)
      x = Nx.iota(shape, type: :s16, backend: Nx.BinaryBackend)

      for x <- [x, Nx.transpose(x, axes: permutation)] do
        y = Nx.backend_copy(x, Emily.Backend)
        assert Nx.to_binary(y, limit: limit) == Nx.to_binary(x, limit: limit)
      end

      x = x |> Nx.backend_copy(Emily.Backend) |> Nx.transpose(axes: permutation)
      count = min(limit, Nx.size(x)) * 2
      assert Nx.to_binary(x, limit: limit) == binary_part(Nx.to_binary(x), 0, count)
    end
  end
end
