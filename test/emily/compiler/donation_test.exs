Code.require_file("../../native/support/settled_memory.exs", __DIR__)

defmodule Emily.Compiler.DonationTest do
  # Arguments that the caller gives away: by the compiler's option, and by Nx's mark, since its versions after 0.13. Alone,
  # since it counts memory.
  use Emily.CompilerCase, async: false

  import Nx.Defn

  @gone ~r/was donated to a call/
  @unit 65_536

  defn step(x), do: {x, x + 1, observe(x, :seen)}
  defn twice(x, y), do: x * 2 + y
  defn product(x, y), do: {x + 1, Nx.dot(x, y)}

  defp donated(fun, args, opts \\ []), do: compiled(fun, args, [donate: [0]] ++ opts)

  # A computed tensor of so many units.
  defp large(n, key \\ 1) do
    x =
      Nx.iota({n, 128, 128}, type: :f32, backend: Emily.Backend)
      |> Nx.multiply(0.7 * key)
      |> Nx.sin()

    Emily.Native.eval(x.data.ref)
    x
  end

  # Of a copy, since a binary that is read of a tensor keeps its memory.
  defp plain(x), do: x |> Nx.multiply(1) |> Nx.backend_copy(Nx.BinaryBackend)

  # What `fun` gives, and the most units of memory that there were at once, beyond those before.
  defp peak(fun) do
    {result, bytes} = SettledMemory.peak(fun)
    {result, bytes / @unit}
  end

  describe "a donated argument" do
    test "means what others do" do
      for fun <- [&twice/2, &product/2], kind <- [:f32, :f16, :s32, :u8] do
        [x, y] = for i <- [1, 2], do: Nx.iota({8, 8}) |> Nx.add(i) |> Nx.as_type(kind)
        result = donated(fun, [on_emily(x), y])
        expected = evaluated(fun, [x, y])

        for {result, expected} <-
              Enum.zip(leaves(result), leaves(expected)),
            do: assert_equal(result, expected)
      end
    end

    test "means what others do in operations that MLX computes" do
      funs = [
        &Nx.concatenate([Nx.reverse(&1), &2]),
        &Nx.pad(&1, Nx.sum(&2) |> Nx.as_type(Nx.type(&1)), [{1, 0, 1}, {0, 2, 0}]),
        &Nx.put_slice(&1, [Nx.reduce_max(&2), 1], Nx.slice(&2, [0, Nx.reduce_min(&2)], [2, 2])),
        &Nx.gather(&1, Nx.remainder(&2, 4) |> Nx.slice([0, 0], [3, 2]) |> Nx.as_type(:s32)),
        &(Nx.transpose(&1) |> Nx.reshape({16}) |> Nx.add(Nx.flatten(&2)) |> Nx.argsort())
      ]

      for fun <- funs, kind <- [:s32, :u8] do
        [x, y] = for i <- [1, 2], do: Nx.iota({4, 4}) |> Nx.add(i) |> Nx.as_type(kind)
        assert_equal(donated(fun, [on_emily(x), y]), evaluated(fun, [x, y]))
      end
    end

    test "is gone" do
      x = on_emily(Nx.tensor([1.0, 2.0]))
      donated(&twice/2, [x, 1])
      assert_raise ArgumentError, @gone, fn -> Nx.to_flat_list(x) end
      assert_raise ArgumentError, @gone, fn -> Nx.to_number(Nx.sum(x)) end
      assert_raise ArgumentError, @gone, fn -> donated(&twice/2, [x, 1]) end
      assert_raise ArgumentError, @gone, fn -> compiled(&twice/2, [x, 1]) end
      assert_raise ArgumentError, @gone, fn -> compiled(&twice/2, [1, x], native: false) end
      assert inspect(x) =~ "donated"
    end

    test "is taken by its position alone, in containers too, where the function has it" do
      sum = &Nx.add(elem(&1, 0), Nx.add(elem(&1, 1), &2))
      [x, y, z] = for i <- 1..3, do: on_emily(Nx.tensor([i]))
      assert_equal(compiled(sum, [{x, y}, z], donate: [0, 7]), Nx.tensor([6]))
      for gone <- [x, y], do: assert_raise(ArgumentError, @gone, fn -> Nx.to_flat_list(gone) end)
      assert_equal(z, Nx.tensor([3]))

      assert_equal(compiled(sum, [{1, z}, z], donate: [1]), Nx.tensor([7]))
    end

    test "may be of another backend, whose tensor stays" do
      x = Nx.tensor([1.0, 2.0], backend: Nx.BinaryBackend)
      assert_equal(donated(&twice/2, [x, 1]), Nx.tensor([3.0, 5.0]))
      assert Nx.to_flat_list(x) == [1.0, 2.0]
    end

    test "may not be computed yet" do
      x = Nx.multiply(on_emily(Nx.tensor([1.0, 2.0])), 2)
      assert_equal(donated(&twice/2, [x, 1]), Nx.tensor([5.0, 9.0]))
    end

    test "may be passed twice, donated once or both times" do
      for positions <- [[0], [1], [0, 1]] do
        x = large(1)
        expected = plain(x)
        result = compiled(&twice/2, [x, x], donate: positions)
        assert_equal(result, Nx.multiply(expected, 3))
        assert_raise ArgumentError, @gone, fn -> Nx.to_flat_list(x) end
      end
    end

    test "may be what is returned" do
      x = on_emily(Nx.tensor([1, 2, 3]))
      {same, next, _} = donated(&step/1, [x])
      assert_equal(same, Nx.tensor([1, 2, 3]))
      assert_equal(next, Nx.tensor([2, 3, 4]))
    end

    test "is seen by hooks as it is, and they may keep it" do
      hooks = %{seen: &send(self(), {:seen, &1})}
      x = large(1)
      expected = plain(x)
      {_, next, _} = donated(&step/1, [x], hooks: hooks)
      assert [{:seen, seen}] = mailbox()
      assert_equal(seen, expected)
      assert_equal(next, Nx.add(expected, 1))
    end

    test "is gone after an evaluation operation by operation too" do
      x = on_emily(Nx.tensor([1, 2, 3]))
      {same, _, _} = donated(&step/1, [x], native: false)
      assert_equal(same, Nx.tensor([1, 2, 3]))
      y = on_emily(Nx.tensor([1, 2, 3]))
      donated(&twice/2, [y, 1], native: false)
      assert_raise ArgumentError, @gone, fn -> Nx.to_flat_list(y) end
    end
  end

  describe "what others have of a donated tensor stays" do
    test "a view, computed or not" do
      for compute <- [true, false] do
        x = large(2)
        [expected_view, expected] = [plain(Nx.transpose(x)), plain(x)]
        view = Nx.transpose(x)
        if compute, do: Emily.Native.eval(view.data.ref)
        assert_equal(donated(&twice/2, [x, 1]), Nx.add(Nx.multiply(expected, 2), 1))
        assert_equal(view, expected_view)
      end
    end

    test "a binary, and what is read at an address" do
      x = large(1)
      binary = Nx.to_binary(x)
      copy = :binary.copy(binary)
      pointer = Nx.to_pointer(x)
      donated(&twice/2, [x, 1])
      assert binary == copy
      at = Nx.from_pointer(Emily.Backend, pointer, {:f, 32}, {1, 128, 128})
      assert Nx.to_binary(at) == copy
    end

    test "what another process computes with it" do
      x = large(4)
      expected = Nx.sum(plain(x)) |> Nx.to_number()
      parent = self()

      tasks =
        for _ <- 1..4 do
          Task.async(fn ->
            sum = Nx.sum(x)
            send(parent, :built)
            Nx.to_number(sum)
          end)
        end

      for _ <- tasks, do: assert_receive(:built, 60_000)
      donated(&twice/2, [x, 1])
      for sum <- Task.await_many(tasks), do: assert_in_delta(sum, expected, expected * 1.0e-5)
    end

    test "or another process is refused" do
      x = large(1)
      expected = plain(x) |> Nx.multiply(2) |> Nx.add(1) |> Nx.to_binary()
      take = fn -> donated(&twice/2, [x, 1]) |> Nx.to_binary() end

      answers =
        1..8 |> Enum.map(fn _ -> Task.async(fn -> try(do: take.(), rescue: (e -> e)) end) end)

      answers = Task.await_many(answers, 60_000)
      {taken, refused} = Enum.split_with(answers, &is_binary/1)
      assert taken != [] and Enum.all?(taken, &(&1 == expected))
      assert Enum.all?(refused, &match?(%ArgumentError{}, &1))
      assert_raise ArgumentError, @gone, fn -> Nx.to_binary(x) end
    end
  end

  describe "a call that fails" do
    test "before it begins leaves the argument" do
      x = on_emily(Nx.tensor([1.0]))
      gone = on_emily(Nx.tensor([1.0]))
      Emily.Native.give_away(gone.data.ref)
      assert_raise ArgumentError, @gone, fn -> donated(&twice/2, [x, gone]) end
      assert_equal(x, Nx.tensor([1.0]))
    end

    test "amid its run has lost it" do
      x = on_emily(Nx.tensor([1.0]))
      hooks = %{seen: fn _ -> raise "as a user's function may" end}
      assert_raise RuntimeError, ~r/as a user's/, fn -> donated(&step/1, [x], hooks: hooks) end
      assert_raise ArgumentError, @gone, fn -> Nx.to_flat_list(x) end
    end
  end

  describe "memory" do
    test "is that of the argument, where an operation goes element by element" do
      x = large(8)
      expected = plain(x)
      {result, peak} = peak(fn -> donated(&twice/2, [x, 1]) end)
      assert peak < 0.1
      assert_equal(result, Nx.add(Nx.multiply(expected, 2), 1))

      {_, peak} = peak(fn -> compiled(&twice/2, [result, 1]) |> computed() end)
      assert peak >= 8
    end

    test "is that of the argument, where a part is updated" do
      defmodule Parts do
        import Nx.Defn
        defn put(x, y), do: Nx.put_slice(x, [0, 3, 3], y)
        defn add(x, y), do: Nx.indexed_add(x, Nx.tensor([[0, 1, 1], [1, 2, 2]]), y)
      end

      for {fun, y} <- [
            {&Parts.put/2, Nx.broadcast(2.0, {1, 2, 2})},
            {&Parts.add/2, Nx.tensor([1.0, 2.0])}
          ] do
        x = large(8)
        expected = evaluated(fun, [plain(x), y])
        {result, peak} = peak(fn -> donated(fun, [x, y]) end)
        assert peak < 0.1
        assert_equal(result, expected)
      end
    end

    test "is copied where somebody else holds the argument" do
      x = large(8)
      view = Nx.reshape(x, {16, 64, 128})
      Emily.Native.eval(view.data.ref)
      {_, peak} = peak(fn -> donated(&twice/2, [x, 1]) end)
      # Some bytes of tests before may go meanwhile.
      assert_in_delta peak, 8, 0.1
      assert Nx.shape(view) == {16, 64, 128}
    end

    @tag :cpu
    test "of a tensor ends with its last use" do
      defmodule Layers do
        import Nx.Defn
        # Each product takes 4 units, and two are there at a time, beside what was given.
        defn layers(x, w), do: x |> layer(w) |> layer(w) |> layer(w) |> layer(w) |> layer(w)
        defnp layer(x, w), do: Nx.dot(Nx.tanh(x), w)
      end

      [x, w] = for n <- [1, 2], do: Nx.reshape(large(4, n), {256, 256})
      expected = compiled(&Layers.layers/2, [x, w]) |> plain()
      {result, peak} = peak(fn -> donated(&Layers.layers/2, [x, w]) end)
      assert peak < 4.1 + 2
      assert_equal(result, expected)
    end

    @tag :cpu
    test "of a loop's state is that of the argument" do
      defmodule Loop do
        import Nx.Defn

        defn loop(x) do
          {x, _} = while {x, i = 0}, i < 5, do: {x * 1.5 + i, i + 1}
          x
        end
      end

      x = large(32)
      expected = evaluated(&Loop.loop/1, [plain(x)])
      {result, peak} = peak(fn -> donated(&Loop.loop/1, [x]) end)
      assert peak < 0.1
      assert_equal(result, expected, atol: 1.0e-5)
    end

    @tag :cpu
    test "of a step of training is that of its state, its activations and a gradient" do
      defmodule Step do
        import Nx.Defn

        defn step({weights, moments}, x) do
          gradients =
            grad(weights, fn {a, b, c} ->
              x
              |> Nx.dot(a)
              |> Nx.tanh()
              |> Nx.dot(b)
              |> Nx.tanh()
              |> Nx.dot(c)
              |> Nx.pow(2)
              |> Nx.mean()
            end)

          moments = each(moments, gradients, fn m, g -> 0.9 * m + g end)
          {each(weights, moments, fn w, m -> w - 0.01 * m end), moments}
        end

        deftransformp each(a, b, fun) do
          Enum.zip_with(Tuple.to_list(a), Tuple.to_list(b), fun) |> List.to_tuple()
        end
      end

      matrix = fn key -> large(4, key) |> Nx.reshape({256, 256}) |> Nx.multiply(0.01) end
      state = {{matrix.(1), matrix.(2), matrix.(3)}, {matrix.(4), matrix.(5), matrix.(6)}}
      for m <- leaves(state), do: Emily.Native.eval(m.data.ref)
      x = large(1) |> Nx.reshape({64, 256})
      expected = compiled(&Step.step/2, [state, x]) |> leaves() |> Enum.map(&plain/1)
      {result, peak} = peak(fn -> donated(&Step.step/2, [state, x]) end)

      # A gradient takes 4 units; the results of two layers, what the third gives, and what goes back, one each.
      assert peak < 4 + 4.1

      for {result, expected} <- Enum.zip(leaves(result), expected),
          do: assert_equal(result, expected, atol: 1.0e-5)
    end

    defp computed(x), do: Emily.Native.eval(x.data.ref)
  end

  test "positions are numbers from 0" do
    for donate <- [0, [-1], [:x], nil] do
      assert_raise ArgumentError, ~r/:donate cannot be/, fn ->
        compiled(&twice/2, [1, 2], donate: donate)
      end
    end
  end

  test "conditions and linear algebra run in functions that are given arguments" do
    defmodule Mixed do
      import Nx.Defn

      defn mixed(x) do
        y = if Nx.sum(x) > 0, do: x * 2, else: x - 1
        z = y + 1
        {Nx.LinAlg.invert(z + 3 * Nx.eye(3)), Nx.sort(y), Nx.cumulative_sum(z)}
      end
    end

    for sign <- [1, -1] do
      x = Nx.multiply(Nx.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5], [0.0, 1.0, 4.0]]), sign)

      for _ <- 1..3 do
        result = donated(&Mixed.mixed/1, [on_emily(x)])

        for {result, expected} <-
              Enum.zip(leaves(result), leaves(evaluated(&Mixed.mixed/1, [x]))),
            do: assert_equal(result, expected, atol: 1.0e-4)
      end
    end
  end

  defp leaves(composite), do: Nx.Defn.Composite.flatten_list([composite])

  if function_exported?(Nx, :donatable, 1) do
    describe "Nx's mark" do
      # Nx.Defn.Evaluator, which takes what has a type that MLX lacks, gives arguments back as they are.
      defn held(x), do: {x, Nx.as_type(x, :f8)}

      test "donates, and no result has it" do
        for bring <- [& &1, &on_emily/1], fun <- [&step/1, &held/1] do
          x = bring.(Nx.tensor([1, 2, 3]))

          Emily.Fallback.with_mode(:silent, fn ->
            expected = evaluated(fun, [plain(x)])
            results = compiled(fun, [Nx.donatable(x)]) |> Tuple.to_list()
            refute Enum.any?(results, &Nx.donatable?/1)

            for {result, expected} <- Enum.zip(results, Tuple.to_list(expected)),
                do: assert(Nx.to_flat_list(result) == Nx.to_flat_list(expected))
          end)
        end
      end

      test "takes the tensor's memory" do
        x = large(8)
        {_, peak} = peak(fn -> compiled(&twice/2, [Nx.donatable(x), 1]) end)
        assert peak < 0.1
        assert_raise ArgumentError, @gone, fn -> Nx.to_flat_list(x) end
      end

      test "is not seen by hooks" do
        hooks = %{seen: &send(self(), {:seen, &1})}
        compiled(&step/1, [Nx.donatable(Nx.tensor([1, 2, 3]))], hooks: hooks)
        assert [{:seen, seen}] = mailbox()
        refute Nx.donatable?(seen)
        assert_equal(seen, Nx.tensor([1, 2, 3]))
      end

      test "needs no program of its own" do
        key = fn x -> compiled(&step/1, [x]) && Emily.Compiler.Cache.info().misses end
        x = Nx.iota({3, 1, 7})
        misses = key.(x)
        assert key.(Nx.donatable(x)) == misses
      end

      test "is asked for where a function was compiled for it" do
        template = Nx.template({2}, :f32)
        add = Nx.Defn.compile(&Nx.add(&1, 1), [Nx.donatable(template)], compiler: Emily.Compiler)
        assert_equal(add.(Nx.donatable(Nx.tensor([1.0, 2.0]))), Nx.tensor([2.0, 3.0]))
        assert_raise ArgumentError, ~r/donatable/, fn -> add.(Nx.tensor([1.0, 2.0])) end
      end
    end
  end
end
