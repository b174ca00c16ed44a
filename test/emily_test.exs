defmodule EmilyTest do
  use Emily.BackendCase, async: true

  doctest Emily

  @on_emily {Emily.Backend, device: :cpu}

  test "arrays keep bytes, sizes and types of every type that MLX has" do
    for {kind, bits} = type <- all_types() do
      short = :"#{kind}#{bits}"
      bytes = :binary.copy(<<1>>, 6 * div(bits, 8))

      for type <- [type, short] do
        array = Emily.from_binary(bytes, [2, 3], type)
        assert is_reference(array)
        assert Emily.shape(array) == [2, 3]
        assert Emily.dtype(array) == {kind, bits}
        assert Emily.to_binary(array) == bytes
      end
    end
  end

  test "an array without axes" do
    array = Emily.from_binary(<<7.5::float-64-native>>, [], {:f, 64})
    assert {Emily.shape(array), Emily.to_binary(array)} == {[], <<7.5::float-64-native>>}
  end

  test "a tensor's array is one, and so is the tensor" do
    tensor = Nx.iota({2, 3}, type: :s16, backend: @on_emily) |> Nx.add(1)
    expected = Nx.iota({2, 3}, type: :s16) |> Nx.add(1) |> Nx.to_binary()

    for array <- [tensor, tensor.data.ref] do
      assert Emily.shape(array) == [2, 3]
      assert Emily.dtype(array) == {:s, 16}
      assert Emily.to_binary(array) == expected
    end
  end

  test "MLX's booleans are bytes" do
    [array] = Emily.Native.run([{:equal, {:arange, 0, 3, 1, :s32}, {:full, [3], 1, :s32}}], :cpu)
    assert {Emily.dtype(array), Emily.to_binary(array)} == {{:u, 8}, <<0, 1, 0>>}
  end

  test "what does not fit together is refused by name" do
    for {data, shape, type, says} <- [
          {<<0::24>>, [2], {:u, 16}, ~r/shape \[2\]/},
          {<<0::24>>, [3], {:c, 128}, ~r/c128/},
          {<<0::24>>, [3], :float, ~r/invalid numerical type: :float/},
          {<<0::24>>, [-3], {:u, 8}, ~r/from_binary.*\[-3\]/},
          {<<0::24>>, 3, {:u, 8}, ~r/from_binary.*3/},
          {[0, 0, 0], [3], {:u, 8}, ~r/from_binary.*\[0, 0, 0\]/}
        ] do
      assert_raise ArgumentError, says, fn -> Emily.from_binary(data, shape, type) end
    end

    for {fun, name} <- [
          {&Emily.to_binary/1, "to_binary/1"},
          {&Emily.shape/1, "shape/1"},
          {&Emily.dtype/1, "dtype/1"}
        ],
        wrong <- [:array, 1, nil, "bytes", {}, %{}, Nx.tensor(1)] do
      assert_raise ArgumentError, ~r"Emily.#{name} expects an array", fn -> fun.(wrong) end
    end

    for {fun, name} <- [{&Emily.eval/1, "eval/1"}, {&Emily.async_eval/1, "async_eval/1"}],
        wrong <- [:array, 1, nil, "bytes", [nil], 1..2, [~D[2000-01-01]]] do
      assert_raise ArgumentError, ~r"Emily.#{name} expects arrays", fn -> fun.(wrong) end
    end

    # A reference that is none of an array.
    for fun <- [&Emily.to_binary/1, &Emily.shape/1, &Emily.dtype/1, &Emily.eval/1],
        do: assert_raise(ArgumentError, fn -> fun.(make_ref()) end)
  end

  describe "evaluation" do
    defmodule Pair do
      @derive {Nx.Container, containers: [:left], keep: [:right]}
      defstruct [:left, :right]
    end

    # Reading what is computed gives no event of an evaluation.
    def count(_event, _bytes, _metadata, test), do: if(self() == test, do: send(test, :evaluated))

    defp computed?(tensor) do
      :telemetry.attach(self(), [:emily, :evaluation], &__MODULE__.count/4, self())
      Nx.to_binary(tensor)
      :telemetry.detach(self())

      receive do
        :evaluated -> false
      after
        0 -> true
      end
    end

    defp lazy, do: Nx.iota({100, 100}, type: :f32, backend: @on_emily) |> then(&Nx.dot(&1, &1))

    test "computes whatever a tree holds" do
      refute computed?(lazy())

      for tree <- [
            & &1,
            & &1.data.ref,
            &[&1],
            &[x: &1],
            &{1, {&1, 2}},
            &%{a: %{"b" => &1}},
            &%Pair{left: [1, &1], right: :kept},
            &[%{a: [&1.data.ref]}.a, Nx.tensor(1), &1]
          ] do
        tensor = lazy()
        assert Emily.eval(tree.(tensor)) == :ok
        assert computed?(tensor)
      end
    end

    test "of nothing, and of what is elsewhere, is done" do
      held =
        Emily.Fallback.with_mode(:silent, fn -> Nx.tensor(1, type: :f8, backend: @on_emily) end)

      for tree <- [[], {}, %{}, Nx.tensor(1), {held, 1}],
          fun <- [&Emily.eval/1, &Emily.async_eval/1],
          do: assert(fun.(tree) == :ok)
    end

    test "that is begun ends with the same numbers" do
      tensor = lazy()
      assert Emily.async_eval([tensor, tensor.data.ref, {tensor}]) == :ok

      expected =
        Nx.iota({100, 100}, type: :f64) |> then(&Nx.dot(&1, &1)) |> Nx.as_type(:f32)

      assert Nx.all_close(Nx.backend_copy(tensor), expected, rtol: 1.0e-6) ==
               Nx.tensor(1, type: :u8)
    end

    test "within a defn is refused" do
      fun = fn x ->
        Emily.eval(x)
        x
      end

      assert_raise ArgumentError, ~r"Emily.eval/1", fn -> Nx.Defn.jit_apply(fun, [1]) end
    end
  end
end
