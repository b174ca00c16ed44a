defmodule Emily.TypesTest do
  # The types that MLX lacks are refused wherever they may enter, and never computed with.
  use Emily.BackendCase, async: true

  @missing [:c128, :f8, :f8_e4m3fn, :u2, :u4, :s2, :s4]

  for type <- @missing do
    @type_name type

    test "#{type} is refused" do
      x = Nx.tensor([1, 0], backend: Emily.Backend)
      options = [type: @type_name, backend: Emily.Backend]
      plain = Nx.tensor([1, 0], type: @type_name, backend: Nx.BinaryBackend)

      for entry <- [
            fn -> Nx.tensor([1, 0], options) end,
            fn -> Nx.tensor(1, options) end,
            fn -> Nx.broadcast(Nx.tensor(1, options), {2}) end,
            fn -> Nx.iota({2}, options) end,
            fn -> Nx.eye(2, options) end,
            fn -> Nx.as_type(x, @type_name) end,
            fn -> Nx.backend_copy(plain, Emily.Backend) end,
            fn -> Nx.backend_transfer(plain, Emily.Backend) end,
            fn -> Nx.add(x, plain) end,
            fn -> Nx.stack([Nx.as_type(x, :u8), plain]) end,
            fn -> Nx.select(x, plain, plain) end
          ] do
        assert_raise ArgumentError, ~r/Emily has no type #{@type_name}/, fn ->
          Nx.with_default_backend(Emily.Backend, entry)
        end
      end
    end
  end

  test "a bitcast to such a type is refused" do
    for {from, to} <- [{:u8, :f8}, {:s8, :f8_e4m3fn}] do
      x = Nx.tensor([1, 2], type: from, backend: Emily.Backend)
      assert_raise ArgumentError, ~r/Emily has no type #{to}/, fn -> Nx.bitcast(x, to) end
    end
  end

  test "an operation whose result would be such a type is refused" do
    x = Nx.tensor([1.0, 2.0], type: :f64, backend: Emily.Backend)
    assert_raise ArgumentError, ~r/no type c128/, fn -> Nx.complex(x, x) end
    assert_raise ArgumentError, ~r/no type c128/, fn -> Nx.fft(x) end
  end

  test "random numbers of such a type are refused" do
    Nx.with_default_backend(Emily.Backend, fn ->
      key = Nx.Random.key(1)

      assert_raise ArgumentError, ~r/no type f8/, fn ->
        Nx.Random.uniform(key, type: :f8, shape: {2})
      end
    end)
  end
end
