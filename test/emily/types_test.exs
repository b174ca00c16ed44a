defmodule Emily.TypesTest do
  # The types that MLX lacks. Not async: fallbacks are counted for the whole VM.
  use Emily.BackendCase, async: false

  import Emily.Observe
  alias Emily.Fallback

  @missing [:c128, :f8, :f8_e4m3fn, :u2, :u4, :s2, :s4]

  # What `fun` gives with Emily as the default backend, and that it was counted as often as said.
  defp emily(fun, count \\ nil) do
    Fallback.with_mode(:silent, fn ->
      before = Fallback.count()
      result = Nx.with_default_backend(Emily.Backend, fun)
      if count, do: assert(Fallback.count() - before == count)
      result
    end)
  end

  defp assert_as_plain(actual, expected) do
    assert %Emily.Backend{device: device} = actual.data

    assert device ==
             if(Emily.Lower.type?(expected.type), do: Emily.Native.default_device(), else: :host)

    assert {actual.type, actual.shape, actual.names} ==
             {expected.type, expected.shape, expected.names}

    assert Nx.to_flat_list(actual) == Nx.to_flat_list(expected)
  end

  defp outcome(fun) do
    fun.()
  rescue
    error in ArgumentError -> {:raised, error.message}
  end

  test "padding by a number of another type gives the type that Nx says" do
    for type <- [:u4, :s4, :u2, :f8] do
      numbers = fn ->
        Nx.tensor([1, 0], type: type) |> Nx.pad(0.5, [{1, 0, 1}]) |> Nx.as_type(:f32)
      end

      assert Nx.to_flat_list(emily(numbers)) == [0.5, 1.0, 0.5, 0.0]
    end
  end

  for type <- @missing do
    @type_name type

    test "#{type}: new tensors are as on Nx.BinaryBackend, and counted" do
      for fun <- [
            fn -> Nx.tensor([1, 0, 1], type: @type_name) end,
            fn -> Nx.tensor(1, type: @type_name) end,
            fn -> Nx.iota({2, 2}, axis: 1, type: @type_name, names: [:a, nil]) end,
            fn -> Nx.eye(2, type: @type_name) end
          ] do
        expected = fun.()
        assert %Nx.BinaryBackend{} = expected.data
        assert_as_plain(emily(fun, 1), expected)
      end
    end

    test "#{type}: operations are as on Nx.BinaryBackend, and counted" do
      numbers = [1, 0, 1, 1]
      x = Nx.tensor(numbers, type: @type_name)
      y = Nx.tensor([[1, 2, 0, 1], [0, 1, 1, 1]], type: :u8)
      e = emily(fn -> Nx.tensor(numbers, type: @type_name) end)
      f = on_emily(y)

      for fun <- [
            fn x, _ -> Nx.add(x, x) end,
            fn x, y -> Nx.multiply(x, y) end,
            fn x, y -> Nx.multiply(y, x) end,
            fn x, _ -> Nx.reshape(x, {2, 2}, names: [:a, nil]) end,
            fn x, _ -> Nx.transpose(Nx.reshape(x, {2, 2})) end,
            fn x, _ -> Nx.slice(x, [1], [2]) end,
            fn x, _ -> Nx.as_type(x, :f32) end,
            fn x, _ -> Nx.equal(x, 1) end,
            fn x, _ -> Nx.sum(x) end,
            fn x, y -> Nx.select(y, x, x) end,
            fn x, y -> Nx.concatenate([x, Nx.as_type(Nx.flatten(y), x.type)]) end,
            fn x, _ -> Nx.stack([x, x]) end,
            fn x, y -> Nx.dot(y, x) end,
            fn x, _ -> Nx.take(x, Nx.tensor([2, 0])) end,
            fn x, _ -> Nx.cumulative_sum(x) end,
            fn x, _ -> Nx.logical_not(x) end
          ] do
        before = Fallback.count()

        case outcome(fn -> fun.(x, y) end) do
          {:raised, message} ->
            # Nx's main branch cannot add what is narrower than a byte.
            assert @type_name in [:u2, :u4, :s2, :s4] and function_exported?(Nx, :donatable, 1)
            assert_raise ArgumentError, message, fn -> emily(fn -> fun.(e, f) end) end

          expected ->
            assert_as_plain(emily(fn -> fun.(e, f) end), expected)
        end

        assert Fallback.count() > before
      end

      for cast <- [:f32, :s32],
          do: assert_as_plain(emily(fn -> Nx.as_type(e, cast) end, 1), Nx.as_type(x, cast))

      assert_as_plain(emily(fn -> Nx.as_type(f, @type_name) end, 1), Nx.as_type(y, @type_name))
    end

    test "#{type}: nothing leaves MLX where that is forbidden" do
      x = Nx.tensor([1, 0], backend: Emily.Backend)
      options = [type: @type_name, backend: Emily.Backend]
      plain = Nx.tensor([1, 0], type: @type_name, backend: Nx.BinaryBackend)
      held = emily(fn -> Nx.tensor([1, 0], options) end)

      for entry <- [
            fn -> Nx.tensor([1, 0], options) end,
            fn -> Nx.tensor(1, options) end,
            fn -> Nx.iota({2}, options) end,
            fn -> Nx.eye(2, options) end,
            fn -> Nx.as_type(x, @type_name) end,
            fn -> Nx.backend_copy(plain, Emily.Backend) end,
            fn -> Nx.backend_transfer(plain, Emily.Backend) end,
            fn -> Nx.add(x, plain) end,
            fn -> Nx.stack([Nx.as_type(x, :u8), plain]) end,
            fn -> Nx.select(x, plain, plain) end,
            fn -> Nx.add(held, held) end,
            fn -> Nx.as_type(held, :f32) end
          ] do
        before = Fallback.count()

        assert_raise RuntimeError, ~r/MLX has no type #{@type_name}; cast .* Nx.as_type/, fn ->
          Fallback.with_mode(:raise, fn -> Nx.with_default_backend(Emily.Backend, entry) end)
        end

        assert Fallback.count() == before
      end
    end

    test "#{type}: a held tensor moves, and is shown" do
      x = Nx.tensor([1, 0, 1, 1], type: @type_name)
      e = emily(fn -> Nx.tensor([1, 0, 1, 1], type: @type_name) end)

      Fallback.with_mode(:raise, fn ->
        assert Nx.to_binary(e) == Nx.to_binary(x)
        assert Nx.to_binary(e, limit: 2) == Nx.to_binary(x, limit: 2)
        assert %Nx.BinaryBackend{} = Nx.backend_transfer(e, Nx.BinaryBackend).data
        assert Nx.to_binary(Nx.backend_copy(e, Nx.BinaryBackend)) == Nx.to_binary(x)
        assert_as_plain(Nx.backend_copy(e, {Emily.Backend, device: :cpu}), x)
        assert inspect(e) =~ ~r/Emily.Backend<host>\s+\[1(.0)?(\+0.0i)?, 0/
        assert_raise ArgumentError, ~r/no array of MLX's/, fn -> Nx.to_pointer(e) end
      end)
    end
  end

  test "a bitcast to such a type and back" do
    for {from, to} <- [{:u8, :f8}, {:s8, :f8_e4m3fn}] do
      plain = Nx.tensor([1, 2], type: from)
      x = on_emily(plain)
      cast = emily(fn -> Nx.bitcast(x, to) end, 1)
      assert_as_plain(cast, Nx.bitcast(plain, to))
      assert_as_plain(emily(fn -> Nx.bitcast(cast, from) end, 1), plain)
    end
  end

  test "complex numbers of f64 parts" do
    x = Nx.tensor([1.0, 2.0, 0.1], type: :f64)
    e = on_emily(x)

    for fun <- [
          &Nx.complex(&1, &1),
          &Nx.fft/1,
          &Nx.as_type(&1, :c128),
          &Nx.add(&1, Complex.new(1, 2)),
          &(&1 |> Nx.fft() |> Nx.ifft() |> Nx.real()),
          &(&1 |> Nx.complex(&1) |> Nx.conjugate() |> Nx.imag()),
          &(&1 |> Nx.complex(&1) |> Nx.abs())
        ] do
      assert_as_plain(emily(fn -> fun.(e) end), fun.(x))
    end
  end

  test "what Nx composes of such tensors" do
    x = Nx.tensor([[4, 1], [1, 3]], type: :c128)
    e = emily(fn -> Nx.tensor([[4, 1], [1, 3]], type: :c128) end)

    for fun <- [
          &Nx.LinAlg.determinant/1,
          &Nx.LinAlg.cholesky/1,
          &Nx.LinAlg.solve(&1, &1),
          &elem(Nx.LinAlg.qr(&1), 0),
          &elem(Nx.LinAlg.lu(&1), 1),
          &elem(Nx.LinAlg.eigh(&1), 0),
          &Nx.phase/1,
          &Nx.fft2/1,
          &Nx.take_along_axis(&1, Nx.tensor([[1, 0], [0, 1]]), axis: 1)
        ] do
      assert_as_plain(emily(fn -> fun.(e) end), fun.(x))
    end
  end

  test "random numbers of such a type" do
    {expected, _} = Nx.Random.uniform(Nx.Random.key(1), type: :f8, shape: {4})
    {actual, _} = emily(fn -> Nx.Random.uniform(Nx.Random.key(1), type: :f8, shape: {4}) end)
    assert_as_plain(actual, expected)
  end

  describe "a compiled function" do
    import Nx.Defn

    defn spectrum(x), do: {x |> Nx.fft() |> Nx.abs(), x + 1}

    defn looped(x) do
      {y, _} =
        while {y = Nx.as_type(x, :f8), i = 0}, i < 3 do
          {Nx.as_type(y * 2, :f8), i + 1}
        end

      if Nx.sum(x) > 0, do: Nx.as_type(y, :f32), else: Nx.as_type(y + 1, :f32)
    end

    defn hooked(x), do: x |> Nx.as_type(:c128) |> observe(:seen) |> Nx.real()

    defp compiled(fun, args, opts \\ []),
      do: Nx.Defn.jit_apply(fun, args, [compiler: Emily.Compiler] ++ opts)

    test "is evaluated operation by operation, those that leave MLX counted" do
      x = Nx.tensor([1.0, 2.0, 3.0], type: :f64)

      for x <- [x, on_emily(x)], options <- [[], [native_fallback: :eval]] do
        {size, more} = emily(fn -> compiled(&spectrum/1, [x], options) end, 2)
        {expected, expected_more} = spectrum(Nx.backend_copy(x, Nx.BinaryBackend))
        assert_as_plain(size, expected)
        assert_as_plain(more, expected_more)
      end

      # The results are Emily's where the default backend is another, too.
      Fallback.with_mode(:silent, fn ->
        assert_as_plain(compiled(&looped/1, [Nx.tensor([1, 2])]), looped(Nx.tensor([1, 2])))
      end)
    end

    test "takes and gives tensors of such types" do
      x = Nx.tensor([1, 2], type: :f8)
      e = emily(fn -> Nx.tensor([1, 2], type: :f8) end)

      for x <- [x, e],
          do:
            assert_as_plain(
              emily(fn -> compiled(&Nx.add/2, [x, 1]) end),
              Nx.add(x |> Nx.backend_copy(Nx.BinaryBackend), 1)
            )
    end

    test "has its hooks" do
      test = self()
      hooks = %{seen: &send(test, {:seen, &1})}
      emily(fn -> compiled(&hooked/1, [Nx.tensor([1.0])], hooks: hooks) end)
      assert_received {:seen, %{type: {:c, 128}}}
    end

    test "is refused when it is compiled, where that is asked for" do
      x = Nx.tensor([1.0, 2.0], type: :f64)

      for {mode, options} <- [silent: [native_fallback: :raise], raise: []] do
        assert_raise RuntimeError,
                     ~r/fft of \{2\} f64 is not done in MLX: MLX has no type c128; cast/,
                     fn ->
                       Fallback.with_mode(mode, fn ->
                         Nx.Defn.compile(&spectrum/1, [x], [compiler: Emily.Compiler] ++ options)
                       end)
                     end
      end
    end
  end
end
