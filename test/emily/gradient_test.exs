defmodule Emily.GradientTest do
  # The gradient of every differentiable operation: as Nx.BinaryBackend computes it, and as central
  # differences say, which are taken in f64 on Nx.BinaryBackend.
  use Emily.BackendCase, async: true

  @step 1.0e-5

  # Those of qr, svd and eigh stand in the guide: Nx's gradient belongs to the signs that its own
  # algorithm finds.

  # Where Nx's own gradient is not the derivative: that of clip has the incoming gradient twice, that
  # of a real transform conjugates.
  @nx_differs [:clip, :fft]

  # A name, the shapes and ranges of the inputs, and a function of them.
  cases =
    for name <-
          ~w(exp expm1 sin cos tan sinh cosh tanh atan asinh sigmoid erf erfc negate abs cbrt)a do
      quote(do: {unquote(name), [{{2, 3}, {-1.2, 1.2}}], &Nx.unquote(name)(&1)})
    end ++
      for name <- ~w(log log1p sqrt rsqrt)a do
        quote(do: {unquote(name), [{{2, 3}, {0.5, 3.0}}], &Nx.unquote(name)(&1)})
      end ++
      for name <- ~w(asin acos atanh erf_inv)a do
        quote(do: {unquote(name), [{{2, 3}, {-0.7, 0.7}}], &Nx.unquote(name)(&1)})
      end ++
      for name <- ~w(add subtract multiply divide pow atan2 max min)a do
        quote do
          {unquote(name), [{{2, 3}, {0.5, 2.0}}, {{3}, {2.1, 3.0}}], &Nx.unquote(name)(&1, &2)}
        end
      end ++
      for name <- ~w(sum mean product reduce_max reduce_min logsumexp variance)a do
        quote(do: {unquote(name), [{{2, 3}, {0.5, 2.0}}], &Nx.unquote(name)(&1, axes: [1])})
      end ++
      for name <- ~w(cumulative_sum cumulative_product cumulative_max cumulative_min)a do
        quote(do: {unquote(name), [{{3, 2}, {0.5, 2.0}}], &Nx.unquote(name)(&1, axis: 0)})
      end ++
      for name <- ~w(window_sum window_max window_min window_mean)a do
        quote do
          {unquote(name), [{{4, 4}, {0.5, 2.0}}], &Nx.unquote(name)(&1, {2, 2}, strides: [2, 1])}
        end
      end

  @matrix {{3, 3}, {-1.0, 1.0}}

  # Far from singular.
  def regular(x), do: Nx.add(Nx.multiply(x, 0.3), Nx.multiply(Nx.eye(3), 2))

  def positive(x) do
    x = regular(x)
    Nx.dot(x, Nx.transpose(x))
  end

  cases =
    cases ++
      [
        quote(do: {:acosh, [{{2, 3}, {1.5, 3.0}}], &Nx.acosh/1}),
        quote(do: {:clip, [{{2, 3}, {0.0, 3.0}}], &Nx.clip(&1, 0.7, 2.2)}),
        quote do
          {:select, [{{2, 3}, {-1.0, 1.0}}, {{2, 3}, {-1.0, 1.0}}],
           &Nx.select(Nx.greater(&1, 0), &1, Nx.multiply(&2, 3))}
        end,
        quote do
          {:shapes, [{{2, 3}, {-1.0, 1.0}}],
           fn x ->
             x = x |> Nx.transpose() |> Nx.reshape({1, 6}) |> Nx.squeeze() |> Nx.reverse()
             Nx.broadcast(x, {2, 6}) |> Nx.multiply(Nx.iota({2, 6}))
           end}
        end,
        quote do
          {:slices, [{{4, 4}, {-1.0, 1.0}}],
           fn x ->
             part = Nx.slice(x, [1, Nx.tensor(9)], [2, 2], strides: [1, 1])
             Nx.put_slice(Nx.multiply(x, 2), [0, 1], Nx.sin(part))
           end}
        end,
        quote do
          {:pad, [{{2, 3}, {-1.0, 1.0}}, {{}, {-1.0, 1.0}}],
           &Nx.pad(Nx.sin(&1), &2, [{1, -1, 1}, {-1, 2, 0}])}
        end,
        quote do
          {:join, [{{2, 3}, {-1.0, 1.0}}, {{2, 3}, {-1.0, 1.0}}],
           &Nx.add(Nx.concatenate([&1, &2], axis: 0) |> Nx.sum(axes: [0]), Nx.stack([&2, &1]))}
        end,
        quote do
          {:gather, [{{4, 3}, {-1.0, 1.0}}],
           fn x ->
             taken = Nx.take(x, Nx.tensor([[0, 3], [3, 1]]), axis: 0) |> Nx.sum(axes: [0, 1])
             along = Nx.take_along_axis(x, Nx.tensor([[2, 2, 0]]), axis: 0)
             gathered = Nx.gather(x, Nx.tensor([[1, 2], [1, 2], [0, 0]]))
             Nx.add(Nx.sin(taken), Nx.multiply(along, gathered))
           end}
        end,
        quote do
          {:indexed, [{{4, 3}, {-1.0, 1.0}}, {{2}, {-1.0, 1.0}}],
           fn x, updates ->
             indices = Nx.tensor([[1, 2], [3, 0]])
             Nx.multiply(Nx.indexed_add(x, indices, updates), Nx.indexed_put(x, indices, updates))
           end}
        end,
        quote(
          do: {:sort, [{{2, 5}, {-3.0, 3.0}}], &Nx.multiply(Nx.sort(&1, axis: 1), Nx.iota({5}))}
        ),
        quote do
          {:dot, [{{2, 3, 2}, {-1.0, 1.0}}, {{2, 4, 3}, {-1.0, 1.0}}],
           &Nx.dot(&1, [1], [0], &2, [2], [0])}
        end,
        quote do
          {:conv, [{{2, 4, 5}, {-1.0, 1.0}}, {{4, 2, 2}, {-1.0, 1.0}}],
           &Nx.conv(&1, &2,
             feature_group_size: 2,
             padding: [{1, 0}],
             strides: [2],
             kernel_dilation: [2]
           )}
        end,
        quote do
          {:conv_2d, [{{1, 2, 4, 4}, {-1.0, 1.0}}, {{2, 2, 2, 2}, {-1.0, 1.0}}],
           &Nx.conv(&1, &2, padding: :same, input_dilation: [1, 2])}
        end,
        quote(do: {:determinant, [@matrix], &Nx.LinAlg.determinant(regular(&1))}),
        quote(do: {:cholesky, [@matrix], &Nx.LinAlg.cholesky(positive(&1))}),
        quote(do: {:invert, [@matrix], &Nx.LinAlg.invert(regular(&1))}),
        quote(do: {:solve, [@matrix, {{3, 2}, {-1.0, 1.0}}], &Nx.LinAlg.solve(regular(&1), &2)}),
        quote do
          {:triangular_solve, [@matrix, {{3}, {-1.0, 1.0}}],
           &Nx.LinAlg.triangular_solve(Nx.tril(regular(&1)), &2)}
        end,
        quote do
          {:lu, [@matrix],
           fn x ->
             {_p, l, u} = Nx.LinAlg.lu(regular(x))
             Nx.add(l, u)
           end}
        end,
        quote do
          {:fft, [{{2, 4}, {-1.0, 1.0}}],
           &(Nx.fft(&1) |> then(fn z -> Nx.add(Nx.real(z), Nx.multiply(Nx.imag(z), 2)) end))}
        end,
        quote do
          {:softmax, [{{2, 3}, {-1.0, 1.0}}],
           fn x ->
             e = Nx.exp(Nx.subtract(x, Nx.reduce_max(x, axes: [1], keep_axes: true)))
             Nx.divide(e, Nx.sum(e, axes: [1], keep_axes: true)) |> Nx.multiply(Nx.iota({3}))
           end}
        end,
        quote do
          {:cond_and_while, [{{3}, {0.5, 1.5}}], fn x -> Emily.GradientTest.Control.steps(x) end}
        end
      ]

  defmodule Control do
    import Nx.Defn

    defn steps(x) do
      {_, y} =
        while {i = 0, y = x}, i < 3 do
          {i + 1, y * Nx.sin(y)}
        end

      if Nx.sum(y) > 100, do: y, else: y * 2
    end
  end

  for {:{}, _, [name, inputs, fun]} <- cases do
    property "#{name}" do
      inputs = unquote(inputs)
      fun = unquote(fun)

      check all(tensors <- inputs(inputs), max_runs: 8) do
        expected = gradient(tensors, fun)
        actual = with_emily(fn -> gradient(on_emily(tensors), fun) end)
        Enum.zip_with(actual, expected, &assert_equal(&1, &2, tolerance: 2.0e-4))

        unless unquote(name) in @nx_differs do
          actual = Enum.map(actual, &Nx.real/1)

          Enum.zip_with(
            actual,
            differences(tensors, fun),
            &assert_equal(&1, &2, tolerance: 5.0e-3)
          )
        end
      end
    end
  end

  property "vectorised axes" do
    check all(x <- tensor({:f, 32}, {3, 4}, range: {0.5, 2.0}), max_runs: 8) do
      loss = fn x -> Nx.multiply(Nx.sin(x), Nx.exp(x)) end
      expected = Nx.Defn.grad(Nx.vectorize(x, :rows), loss)
      actual = with_emily(fn -> Nx.Defn.grad(Nx.vectorize(on_emily(x), :rows), loss) end)
      assert expected.vectorized_axes == [rows: 3]
      assert_equal(actual, expected, tolerance: 2.0e-4)
    end
  end

  # Distinct numbers, far from each other against the step: maxima and sorts have gradients then.
  defp inputs(inputs) do
    inputs
    |> Enum.map(fn {shape, {low, high}} ->
      size = Tuple.product(shape)

      StreamData.map(
        StreamData.constant(nil) |> StreamData.bind(fn _ -> shuffled(size) end),
        fn order ->
          numbers = for at <- order, do: low + (high - low) * (at + 0.5) / size

          Nx.with_default_backend(Nx.BinaryBackend, fn ->
            numbers |> Nx.tensor(type: :f32) |> Nx.reshape(shape)
          end)
        end
      )
    end)
    |> StreamData.fixed_list()
  end

  defp shuffled(size) do
    StreamData.map(StreamData.list_of(StreamData.integer(0..1_000_000), length: size), fn keys ->
      keys |> Enum.with_index() |> Enum.sort() |> Enum.map(&elem(&1, 1))
    end)
  end

  # Constants of the gradient live on the default backend.
  defp with_emily(fun), do: Nx.with_default_backend(Emily.Backend, fun)

  defp gradient(tensors, fun) do
    loss = fn inputs -> inputs |> Tuple.to_list() |> then(&apply(fun, &1)) |> total() end
    tensors |> List.to_tuple() |> Nx.Defn.grad(loss) |> Tuple.to_list()
  end

  # Weights tell the elements of the result apart.
  defp total(y) do
    weights = Nx.add(1, Nx.divide(Nx.iota(Nx.shape(y), vectorized_axes: []), 7))
    Nx.sum(Nx.multiply(y, weights))
  end

  defp differences(tensors, fun) do
    tensors = Enum.map(tensors, &Nx.as_type(&1, :f64))

    for {tensor, at} <- Enum.with_index(tensors) do
      size = Nx.size(tensor)

      slopes =
        for element <- 0..(size - 1) do
          [above, below] =
            for sign <- [1, -1] do
              shift = Nx.reshape(Nx.equal(Nx.iota({size}), element), Nx.shape(tensor))
              moved = Nx.add(tensor, Nx.multiply(shift, Nx.tensor(sign * @step, type: :f64)))
              apply(fun, List.replace_at(tensors, at, moved)) |> total() |> Nx.to_number()
            end

          (above - below) / (2 * @step)
        end

      slopes |> Nx.tensor(type: :f32) |> Nx.reshape(Nx.shape(tensor))
    end
  end

  defmodule Loops do
    import Nx.Defn

    defn powers(x) do
      {x, _} = while {x, i = 0}, i < 3, do: {x * x * 0.5, i + 1}
      Nx.sum(x)
    end

    defn nested(x) do
      {x, _} =
        while {x, i = 0}, i < 2 do
          {x, _} = while {x, j = 0}, j < 2, do: {Nx.sin(x), j + 1}
          {x * 2, i + 1}
        end

      Nx.sum(x)
    end

    def derivative(:powers, x), do: 8 * x ** 7 / 128

    def derivative(:nested, x) do
      Enum.reduce(1..2, {x, 1.0}, fn _, {x, slope} ->
        {x, slope} =
          Enum.reduce(1..2, {x, slope}, fn _, {x, slope} ->
            {:math.sin(x), slope * :math.cos(x)}
          end)

        {2 * x, 2 * slope}
      end)
      |> elem(1)
    end
  end

  # Nx 0.12.1 says f32 of what such a gradient computes in f64.
  for name <- [:powers, :nested], type <- [{:f, 64}, {:f, 32}, {:f, 16}, {:bf, 16}] do
    @tag type |> Nx.Type.to_string() |> String.to_atom()
    test "through the loop #{name} in #{Nx.Type.to_string(type)} is a tensor of its own type" do
      fun = Function.capture(Loops, unquote(name), 1)
      x = Nx.tensor([0.5, 1.0, 1.5], type: unquote(Macro.escape(type)))
      expected = for number <- Nx.to_flat_list(x), do: Loops.derivative(unquote(name), number)

      for compiler <- [Emily.Compiler, Nx.Defn.Evaluator] do
        grad = Nx.Defn.jit(&Nx.Defn.grad(&1, fun), compiler: compiler)
        actual = grad.(Nx.backend_copy(x, Emily.Backend))
        {_, bits} = actual.type
        assert byte_size(Nx.to_binary(actual)) == 3 * div(bits, 8)
        tolerance = if elem(x.type, 1) == 16, do: 5.0e-2, else: 1.0e-5

        for {number, expected} <- Enum.zip(Nx.to_flat_list(actual), expected),
            do: assert_in_delta(number, expected, tolerance * (1 + abs(expected)))

        # Whatever is done with it.
        assert Nx.to_number(actual[1]) == Enum.at(Nx.to_flat_list(actual), 1)
        assert Nx.to_flat_list(Nx.backend_copy(actual)) == Nx.to_flat_list(actual)
        assert Nx.to_pointer(actual).data_size == 3 * div(bits, 8)
      end
    end
  end

  # Nx says f32 of the state of such a loop, which goes on in the type of what is computed.
  describe "through a loop, of what is computed before it," do
    defp through(fun, x, compiler) do
      fun = fn x -> x |> Nx.multiply(1.25) |> fun.() |> Nx.real() |> Nx.sum() end

      Nx.Defn.jit_apply(&Nx.Defn.grad(&1, fun), [Nx.backend_copy(x, Emily.Backend)],
        compiler: compiler
      )
    end

    @tag :f64
    test "has the digits of f64" do
      x = Nx.tensor([0.5, 1.0, 1.5], type: :f64)

      for compiler <- [Emily.Compiler, Nx.Defn.Evaluator] do
        actual = through(Function.capture(Loops, :powers, 1), x, compiler)
        assert actual.type == {:f, 64}

        for {actual, x} <- Enum.zip(Nx.to_flat_list(actual), Nx.to_flat_list(x)) do
          expected = 1.25 * Loops.derivative(:powers, 1.25 * x)
          assert_in_delta(actual, expected, 1.0e-13 * abs(expected))
        end
      end
    end

    # The derivative of z^8 / 128 is z^7 / 16.
    test "has both parts of a complex number" do
      z = Complex.new(0.75, 0.5)
      w = Complex.multiply(z, 1.25)
      powers = Enum.reduce(1..6, w, fn _, product -> Complex.multiply(product, w) end)
      expected = Complex.multiply(powers, 1.25 / 16)

      for compiler <- [Emily.Compiler, Nx.Defn.Evaluator] do
        fun = Function.capture(Loops, :powers, 1)
        actual = Nx.to_number(through(fun, Nx.tensor(z), compiler))
        assert_in_delta(Complex.abs(Complex.subtract(actual, expected)), 0.0, 1.0e-6)
      end
    end
  end
end
