defmodule Emily.Lower.Conv.PiecesTest do
  use ExUnit.Case, async: true
  use ExUnitProperties

  alias Emily.{Backend, Native}
  alias Emily.Lower.Conv.Pieces

  # Small whole numbers, whose sums are exact in any order.
  defp values(shape, backend) do
    Nx.iota(shape, type: :f32, backend: Nx.BinaryBackend)
    |> Nx.multiply(7)
    |> Nx.add(3)
    |> Nx.remainder(11)
    |> Nx.subtract(5)
    |> Nx.backend_transfer(backend)
  end

  defp direct(x, _dims, w, _w_dims, config) do
    send(self(), :piece)
    {low, high} = Enum.unzip(config.padding)

    {:conv, x, w, config.strides, low, high, config.kernel_dilation, config.input_dilation,
     config.groups, false, false}
  end

  # The batch leads and the channels are last.
  defp in_pieces(x, w, config, most) do
    x_dims = Tuple.to_list(x.shape)
    opts = [first: 1, dtype: :f32, bytes: 4, unfolds: true, most: most]
    [x_ref, w_ref] = for t <- [x, w], do: Nx.backend_copy(t, Backend).data.ref

    expression =
      Pieces.conv(x_ref, x_dims, w_ref, Tuple.to_list(w.shape), config, opts, &direct/5)

    [result] = Native.run([expression], :cpu)
    # The sign of zero is that of some product with padding.
    {Native.shape(result),
     for(<<value::float-32-native <- Native.to_binary(result)>>, do: value + 0.0)}
  end

  defp expected(x, w, config) do
    last = Nx.rank(x) - 1
    order = [0, last | Enum.to_list(1..(last - 1)//1)]
    back = [0 | Enum.to_list(2..last//1)] ++ [1]

    result =
      Nx.conv(Nx.transpose(x, axes: order), Nx.transpose(w, axes: order),
        strides: config.strides,
        padding: config.padding,
        kernel_dilation: config.kernel_dilation,
        input_dilation: config.input_dilation,
        feature_group_size: config.groups
      )

    result = Nx.transpose(result, axes: back)
    {result.shape, Nx.to_flat_list(result)}
  end

  defp pieces, do: Process.info(self(), :message_queue_len) |> elem(1)

  property "pieces of any kind are the whole" do
    axis =
      fixed_map(%{
        size: integer(1..6),
        width: integer(1..4),
        stride: integer(1..5),
        low: integer(0..9),
        high: integer(0..9),
        kernel_dilation: integer(1..5),
        input_dilation: integer(1..5)
      })

    check all(
            axes <- list_of(map(axis, &fitting/1), min_length: 1, max_length: 2),
            batch <- integer(1..3),
            groups <- integer(1..2),
            most <- member_of([4, 40, 200, 1000]),
            max_runs: 300
          ) do
      each = fn key -> Enum.map(axes, & &1[key]) end

      config = %{
        strides: each.(:stride),
        padding: Enum.zip(each.(:low), each.(:high)),
        kernel_dilation: each.(:kernel_dilation),
        input_dilation: each.(:input_dilation),
        groups: groups
      }

      x = values(List.to_tuple([batch | each.(:size)] ++ [2]), Nx.BinaryBackend)
      w = values(List.to_tuple([2 | each.(:width)] ++ [div(2, groups)]), Nx.BinaryBackend)
      assert in_pieces(x, w, config, most) == expected(x, w, config)
    end

    assert pieces() > 300
  end

  # With as much high padding as the kernel needs.
  defp fitting(axis) do
    padded = axis.low + (axis.size - 1) * axis.input_dilation + 1
    %{axis | high: max(axis.high, (axis.width - 1) * axis.kernel_dilation + 1 - padded)}
  end

  describe "what padding and dilation blow up" do
    # By arithmetic: the outputs stand far from each other, and each sees one entry through one tap, or none.
    test "is computed where the result is small" do
      x = Nx.iota({1, 1, 4, 4}, type: :f32, backend: Backend)
      w = Nx.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], backend: Backend)
      wide = {60_000, 60_000}

      # 3 x 3 outputs at -60,000, 0 and 60,000: the middle one sees the first corner.
      assert Nx.conv(x, w, padding: [wide, wide], strides: [60_000, 60_000]) |> Nx.to_flat_list() ==
               [0.0, 0.0, 0.0, 0.0, 1 * 0.0 + 2 * 1.0 + 3 * 4.0 + 4 * 5.0, 0.0, 0.0, 0.0, 0.0]

      # Entries and outputs stand at the same places.
      apart = [input_dilation: [40_000, 40_000], strides: [40_000, 40_000]]

      assert Nx.conv(x, w, apart) |> Nx.to_flat_list() ==
               [0, 1, 2, 4, 5, 6, 8, 9, 10] |> Enum.map(&(&1 * 1.0))

      for type <- [:f32, :s32] ++ if(Emily.BackendCase.f64?(), do: [:f64], else: []) do
        far = 536_870_912
        x = Nx.tensor([[[3, 5]]], type: type, backend: Backend)
        w = Nx.tensor([[[7, 11]]], type: type, backend: Backend)

        # Outputs at -2^29 and 0 see the entries through one of the taps.
        result = Nx.conv(x, w, kernel_dilation: far, padding: [{far, far - 1}], strides: far)
        assert result |> Nx.to_flat_list() |> Enum.map(&trunc/1) == [33, 21]
      end
    end
  end
end
