defmodule Emily.Compiler.ControlFlowTest do
  # Conditions and loops of a compiled function, beside Nx.BinaryBackend's evaluator.
  use Emily.CompilerCase, async: true

  import Nx.Defn

  # Hooks run in the calling process.
  deftransformp marked(x, mark) do
    observe(x, fn _ -> send(self(), mark) end)
  end

  # A hook in each branch, and in the conditions of the later clauses.
  defn branches(x) do
    cond do
      x < 0 -> marked(-x, :negative)
      marked(x < 10, :second_asked) -> marked(x + 1, :small)
      marked(x < 100, :third_asked) -> marked(x * 2, :middle)
      true -> marked(x, :large)
    end
  end

  describe "cond" do
    for {number, marks} <- [
          {-3, [:negative]},
          {3, [:second_asked, :small]},
          {30, [:second_asked, :third_asked, :middle]},
          {300, [:second_asked, :third_asked, :large]}
        ] do
      test "runs the branch of #{number} alone, and the conditions before it" do
        x = Nx.tensor(unquote(number))
        assert_equal(compiled(&branches/1, [x]), evaluated(&branches/1, [x]))
        marks = unquote(marks)
        assert mailbox() == marks ++ marks
      end
    end

    defn nested(x, y) do
      cond do
        x > 10 ->
          if y > 0, do: x * y, else: if(y < -5, do: x - y, else: x)

        Nx.all(Nx.stack([x, y]) == 0) ->
          Nx.tensor(7)

        true ->
          if x == y, do: y, else: x + 1
      end
    end

    test "branches in branches" do
      for x <- [0, 3, 11], y <- [-6, -1, 0, 3, 4], do: assert_compiled(&nested/2, [x, y])
    end

    # `shared` is read outside and in branches, `both` in two branches and a condition, `inner` by one
    # branch of the inner condition and the outer.
    defn sharing(x) do
      shared = Nx.exp(x)
      both = Nx.sin(shared)
      sum = Nx.sum(both)

      chosen =
        if sum > 1 do
          inner = Nx.cos(both)
          if Nx.sum(inner) > 0.5, do: inner + shared, else: inner - both
        else
          both * 2
        end

      other = if sum > 1, do: chosen * 2, else: both
      {chosen + shared, other, Nx.sum(chosen)}
    end

    test "nodes shared by branches, conditions and what follows" do
      for x <- [[0.1, 0.2, 0.3], [1.0, 1.5, 0.9], [-2.0, -3.0, 4.0]],
          do: assert_compiled(&sharing/1, [Nx.tensor(x)])
    end

    defn in_two_branches(x) do
      seen = marked(Nx.exp(x), :seen)

      cond do
        x < 0 -> seen + 1
        x < 1 -> seen * 2
        true -> x
      end
    end

    test "a node of some branches alone is computed where Nx computes it" do
      for x <- [-1.0, 0.5, 2.0] do
        expected = evaluated(&in_two_branches/1, [x])
        marks = mailbox()
        assert_equal(compiled(&in_two_branches/1, [x]), expected)
        assert mailbox() == marks
      end
    end

    defn in_containers(x, y) do
      if Nx.sum(x) > 0 do
        {x, %{a: y, b: {Nx.tensor([1, 2]), 3}}}
      else
        {x + 1, %{a: x, b: {Nx.tensor([3, 4]), Nx.sum(y)}}}
      end
    end

    test "branches of containers, constants and arguments as they are" do
      for x <- [[1, 2], [-1, -2]],
          do: assert_compiled(&in_containers/2, [Nx.tensor(x), Nx.tensor([5, 6])])
    end

    defn chosen(p), do: if(p, do: 1, else: 2)

    test "predicates of every type" do
      for type <- real_types(),
          number <- [0, 1, 3],
          do: assert_compiled(&chosen/1, [Nx.tensor(number, type: type)])

      for number <- [:nan, :infinity, -0.0, 0.5],
          do: assert_compiled(&chosen/1, [Nx.tensor(number)])
    end
  end

  describe "while" do
    defn containers(x) do
      map = %{z: Nx.tensor([[1, 2], [3, 4]]), n: Nx.u8(250)}

      {x, {y, map}, i} =
        while {x, {y = x * 2.0, map}, i = 0}, i < Nx.argmax(x) + 3 do
          {y, {x + i, %{z: Nx.transpose(map.z) + i, n: map.n + 1}}, i + 1}
        end

      %{x: x, y: y, map: map, i: i}
    end

    test "over a state of many tensors in containers" do
      assert_compiled(&containers/1, [Nx.tensor([0.5, 3.0, 1.0])])
    end

    defn nothing(x, limit) do
      {x, _} =
        while {x, limit}, Nx.sum(x) < limit do
          {x * 2, limit}
        end

      x
    end

    test "no iteration, one, and many" do
      for limit <- [0, 5, 6, 100_000], do: assert_compiled(&nothing/2, [Nx.tensor([1, 4]), limit])
    end

    defn triangle(n) do
      {total, _, _} =
        while {total = 0, i = 0, n}, i < n do
          {inner, _, _} =
            while {inner = 0, j = 0, i}, j <= i do
              {inner + j * i, j + 1, i}
            end

          {total + inner, i + 1, n}
        end

      total
    end

    test "a loop in a loop" do
      for n <- [0, 1, 9], do: assert_compiled(&triangle/1, [n])
    end

    defn collatz(n) do
      {_, steps} =
        while {n, steps = 0}, n != 1 do
          if Nx.remainder(n, 2) == 0,
            do: {Nx.quotient(n, 2), steps + 1},
            else: {n * 3 + 1, steps + 1}
        end

      steps
    end

    defn loop_in_branch(x, n) do
      if n > 2 do
        {x, _, _} =
          while {x, i = 0, n}, i < n do
            {Nx.sin(x) + i, i + 1, n}
          end

        x
      else
        x * n
      end
    end

    test "a condition in a loop, and a loop in a condition" do
      for n <- [1, 6, 27], do: assert_compiled(&collatz/1, [n])
      for n <- [1, 5], do: assert_compiled(&loop_in_branch/2, [Nx.tensor([0.5, 1.0]), n])
    end

    defn repeated(x) do
      {a, _} =
        while {x, i = 0}, i < 4 do
          {x + Nx.iota({3}), i + 1}
        end

      {b, _} =
        while {x = a, i = 0}, i < 3 do
          {x * a_constant() - i, i + 1}
        end

      {a, b, a + b}
    end

    defn a_constant, do: Nx.tensor([1.5, 2.0, -1.0])

    test "one loop after the other, with constants of several elements" do
      assert_compiled(&repeated/1, [Nx.tensor([1.0, 2.0, 3.0])])
    end

    defn generator(x) do
      {sum, last} =
        while {sum = Nx.tensor(0.0), last = x[0]}, row <- x do
          {sum + Nx.sum(row * last), row}
        end

      {sum, last}
    end

    defn unrolled(x) do
      while x, i <- 0..5//2, unroll: 2 do
        x + i
      end
    end

    test "generators and unrolled loops" do
      assert_compiled(&generator/1, [Nx.iota({4, 3}, type: :f32)])
      assert_compiled(&unrolled/1, [Nx.tensor([1, 2])])
    end

    defn swapped(x, y) do
      {x, y, _} =
        while {x, y, i = 0}, i < 5 do
          {y, x, i + 1}
        end

      {x, y}
    end

    test "a state that only changes places, and one that stands twice" do
      [x, y] = [Nx.tensor([1, 2]), Nx.tensor([3, 4])]
      assert_compiled(&swapped/2, [x, y])
      assert_compiled(&swapped/2, [x, x])
      # The arguments are as before.
      x = on_emily(x)
      compiled(&swapped/2, [x, x])
      assert_equal(x, Nx.tensor([1, 2]))
    end

    test "arguments that a loop updates are not written over" do
      x = on_emily(Nx.broadcast(0.0, {4, 3}))
      {filled, _} = compiled(&fill/1, [{x, 0}])
      assert_equal(filled, Nx.tensor(for(n <- 0..3, do: List.duplicate(n * 1.0, 3))))
      assert_equal(x, Nx.broadcast(0.0, {4, 3}))
    end

    defn fill({x, i}) do
      while {x, i}, i < 4 do
        {Nx.put_slice(x, [i, 0], Nx.broadcast(Nx.as_type(i, :f32), {1, 3})), i + 1}
      end
    end
  end

  describe "vectorised axes" do
    defn rows(x, y) do
      z = x * y + Nx.sum(x)

      if Nx.sum(x) > 3 do
        {z, Nx.argsort(z, direction: :desc)}
      else
        {-z, Nx.argsort(x)}
      end
    end

    defn growing(x) do
      while x, Nx.sum(x) < 20 do
        x + x
      end
    end

    test "through operations, branches and loops" do
      x = Nx.tensor([[1, 2, 0], [4, 5, 9]]) |> Nx.vectorize(:row)
      y = Nx.tensor([[1], [3]]) |> Nx.vectorize(:column)
      assert_compiled(&rows/2, [x, y])
      assert_compiled(&growing/1, [x])

      # One closed over, which stands in the program; one that the program only hands back.
      assert_compiled(fn y -> {x, Nx.add(x, y)} end, [y])

      for x <- [x, Nx.backend_copy(x, Emily.Backend)],
          do: assert_compiled(fn x -> {x, Nx.devectorize(x), Nx.add(x, 1)} end, [x])
    end
  end

  describe "gradients" do
    defn branchy(x) do
      if Nx.sum(x) > 0, do: Nx.sum(Nx.sin(x) * x), else: Nx.sum(Nx.exp(x))
    end

    defn looping(x) do
      {x, _} =
        while {x, i = 0}, i < 3 do
          {Nx.tanh(x) * 1.5, i + 1}
        end

      Nx.sum(x * x)
    end

    defn blocks(x) do
      a = x + Nx.eye(3) * 5
      lower = Nx.LinAlg.cholesky(Nx.dot(a, Nx.transpose(a)))

      Nx.sum(Nx.LinAlg.solve(a, x)) + Nx.LinAlg.determinant(a) + Nx.sum(lower) +
        Nx.sum(Nx.cumulative_sum(x, axis: 1) * x) + Nx.sum(Nx.take(x, Nx.tensor([0, 2, 0])))
    end

    test "through branches, loops and blocks" do
      for x <- [[0.5, 1.0], [-0.5, -1.0]] do
        assert_compiled(&grad(&1, fn x -> branchy(x) end), [Nx.tensor(x)])
        assert_compiled(&grad(&1, fn x -> looping(x) end), [Nx.tensor(x)])
        both = fn x -> Nx.multiply(looping(x), branchy(x)) end
        assert_compiled(&value_and_grad(&1, both), [Nx.tensor(x)])
      end

      x = Nx.tensor([[0.1, 0.7, -0.3], [0.4, -0.2, 0.9], [0.8, 0.5, 0.2]])
      assert_compiled(&value_and_grad(&1, fn x -> blocks(x) end), [x], tolerance: 3.0e-5)
    end
  end

  describe "random numbers" do
    defn noisy(key) do
      {key, {sum, _}} =
        while {key, {sum = Nx.broadcast(0.0, {2, 3}), i = 0}}, i < 4 do
          {noise, key} = Nx.Random.uniform(key, shape: {2, 3})
          {key, {sum + noise, i + 1}}
        end

      {normal, key} = Nx.Random.normal(key, 0.0, 2.0, shape: {5})
      {shuffled, key} = Nx.Random.shuffle(key, Nx.iota({7}))
      {whole, _key} = Nx.Random.randint(key, -5, 100, shape: {4}, type: :s16)
      keys = Nx.Random.split(Nx.Random.key(3), parts: 3)
      {sum, normal, shuffled, whole, keys}
    end

    test "keys go through loops" do
      assert_compiled(&noisy/1, [Nx.Random.key(42)])
    end
  end
end
