defmodule Emily.Lower.FFTTest do
  use Emily.BackendCase, async: true

  defp signal(types, lengths \\ [nil, :power_of_two, 2, 5]) do
    gen all(
          type <- type(types),
          shape <- shape(1..3),
          axis <- StreamData.integer(0..(tuple_size(shape) - 1)),
          length <- StreamData.member_of(lengths),
          # BinaryBackend fails on transforms of one number.
          shape = put_elem(shape, axis, max(elem(shape, axis), 2)),
          x <- tensor(type, shape)
        ) do
      {x, [axis: axis] ++ if(length, do: [length: length], else: [])}
    end
  end

  # BinaryBackend transposes wrongly in three axes or more unless the last is transformed: the axis
  # is moved there first.
  defp assert_same_transform(x, opts, fun) do
    axis = opts[:axis]
    last = Nx.rank(x) - 1
    swap = x |> Nx.axes() |> List.replace_at(axis, last) |> List.replace_at(last, axis)

    expected =
      x
      |> Nx.transpose(axes: swap)
      |> fun.(Keyword.put(opts, :axis, last))
      |> Nx.transpose(axes: swap)

    assert_equal(fun.(on_emily(x), opts), expected, tolerance: 2.0e-5)
  end

  for name <- [:fft, :ifft] do
    property "#{name}: any axis and length" do
      check all({x, opts} <- signal(all_types() -- [{:f, 64}]), max_runs: 50) do
        assert_same_transform(x, opts, &(Nx.unquote(name) / 2))
      end
    end
  end

  for name <- [:fft2, :ifft2] do
    property "#{name}: any axes and lengths" do
      check all(
              x <- StreamData.bind(type([{:f, 32}, {:c, 64}, {:s, 32}]), &tensor(&1, {3, 4})),
              axes <- StreamData.member_of([[-2, -1], [0, 1]]),
              lengths <- StreamData.member_of([nil, [2, 4], [3, 5]]),
              max_runs: 30
            ) do
        opts = [axes: axes] ++ if(lengths, do: [lengths: lengths], else: [])
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end, tolerance: 2.0e-5)
      end
    end
  end

  if function_exported?(Nx, :rfft, 2) do
    property "rfft and irfft" do
      check all({x, opts} <- signal([{:f, 32}, {:s, 32}, {:f, 16}]), max_runs: 30) do
        assert_same_transform(x, opts, &Nx.rfft/2)
      end

      check all({x, opts} <- signal([{:c, 64}], [4, 5]), max_runs: 30) do
        opts = Keyword.put(opts, :length, opts[:length] || 4)
        assert_same_transform(x, opts, &Nx.irfft/2)
      end
    end
  end

  test "parts up to eps are zero" do
    x = Nx.tensor([[1.0, 0.1, 0.0, 0.0], [0.3, 0.2, 0.0, 0.05]])

    for eps <- [0, 1.0e-10, 0.16, 2.0], axis <- [0, 1] do
      assert_same([x], fn [x] -> Nx.fft(x, axis: axis, eps: eps) end)
      assert_same([x], fn [x] -> Nx.ifft(x, axis: axis, eps: eps / 4) end)
    end

    zeroed = x |> on_emily() |> Nx.fft(eps: 0.16) |> Nx.imag()
    assert Nx.to_flat_list(zeroed) == [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
  end

  @tag :f64
  test "a transform of f64 is c128, which leaves MLX" do
    x = Nx.tensor([1.0, 2.0], type: :f64, backend: Emily.Backend)
    assert_raise RuntimeError, ~r/no type c128/, fn -> Nx.fft(x) end
  end
end
