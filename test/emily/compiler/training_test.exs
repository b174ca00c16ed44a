# Axon takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Axon) do
  defmodule Emily.Compiler.TrainingTest do
    # Fifty compiled steps of training follow those of Nx.BinaryBackend, from the same parameters on
    # the same data.
    use Emily.BackendCase, async: true

    import Emily.Training

    alias Polaris.Optimizers

    @steps 50

    # Each step takes the last one's parameters, so roundings add up. Relative to the first loss.
    @tolerance 1.0e-5
    # bf16 has 8 bits: a step differs by up to 1/256 of what it adds up.
    @bf16_tolerance 2.0e-2

    defp mlp do
      Axon.input("x", shape: {nil, 6})
      |> Axon.dense(16, activation: :tanh)
      |> Axon.layer_norm()
      |> Axon.dense(8, activation: :gelu)
      |> Axon.dense(3, activation: :softmax)
    end

    defp cnn do
      Axon.input("x", shape: {nil, 8, 8, 1})
      |> Axon.conv(4, kernel_size: 3, padding: :same, activation: :relu)
      |> Axon.max_pool(kernel_size: 2)
      |> Axon.batch_norm()
      |> Axon.conv(4, kernel_size: 2, strides: 2)
      |> Axon.avg_pool(kernel_size: 2)
      |> Axon.flatten()
      # Without a seed it takes the clock.
      |> Axon.dropout(rate: 0.25, seed: 7)
      |> Axon.dense(3, activation: :softmax)
    end

    # Inputs in no order, and classes that depend on them.
    defp data(shape) do
      size = Tuple.product(shape)
      x = {size} |> Nx.iota() |> Nx.multiply(1.7) |> Nx.sin() |> Nx.reshape(shape)
      rows = Nx.reshape(x, {elem(shape, 0), :auto})
      class = Nx.argmax(rows[[.., 0..2]], axis: 1)
      {x, class |> Nx.new_axis(1) |> Nx.equal(Nx.iota({1, 3})) |> Nx.as_type(:f32)}
    end

    defp assert_follows(losses, expected, tolerance) do
      worst = losses |> Enum.zip_with(expected, &abs(&1 - &2)) |> Enum.max()

      assert worst <= tolerance * hd(expected),
             "off by #{worst} of #{hd(expected)}\n#{inspect(losses)}\n#{inspect(expected)}"
    end

    defp assert_learns(losses), do: assert(List.last(losses) < 0.7 * hd(losses))

    for {name, shape} <- [mlp: {16, 6}, cnn: {8, 8, 8, 1}] do
      test "#{name}: Adam in f32, and bf16 near it" do
        model = unquote(name)()
        data = {x, _y} = data(unquote(Macro.escape(shape)))
        steps = List.duplicate(data, @steps)
        state = initial(model, x)

        {expected, expected_state} = train(model, state, steps, compiler: Nx.Defn.Evaluator)
        assert_learns(expected)

        {losses, trained} = train(model, state, steps, compiler: Emily.Compiler)
        assert_follows(losses, expected, @tolerance)

        for {layer, weights} <- expected_state.data, {weight, expected} <- weights do
          assert_equal(trained.data[layer][weight], expected, tolerance: 1.0e-4)
        end

        policy =
          Axon.MixedPrecision.create_policy(
            params: {:f, 32},
            compute: {:bf, 16},
            output: {:f, 32}
          )

        mixed = Axon.MixedPrecision.apply_policy(model, policy, except: [:batch_norm, :dropout])
        {losses, trained} = train(mixed, state, steps, compiler: Emily.Compiler)
        assert_follows(losses, expected, @bf16_tolerance)
        assert losses != expected
        for {_, w} <- trained.data, {_, t} <- w, do: assert(Nx.type(t) in [{:f, 32}, {:u, 32}])
      end
    end

    @tag :capture_log
    test "Axon.Loop trains, with a metric and options of its own" do
      data = data({16, 6})
      model = mlp()
      state = initial(model, elem(data, 0))

      run = fn options ->
        test = self()

        seen = fn loop ->
          send(test, {:loss, Nx.to_number(loop.step_state.loss)})
          {:continue, loop}
        end

        model
        |> Axon.Loop.trainer(:categorical_cross_entropy, Optimizers.adam(learning_rate: 1.0e-2),
          log: 0
        )
        |> Axon.Loop.metric(:accuracy)
        |> Axon.Loop.handle_event(:iteration_completed, seen)
        |> Axon.Loop.run(
          List.duplicate(data, 10),
          state,
          [epochs: 5, garbage_collect: true] ++ options
        )

        for _ <- 1..@steps do
          assert_received {:loss, loss}
          loss
        end
      end

      expected = run.(compiler: Nx.Defn.Evaluator)
      assert List.last(expected) < hd(expected)
      assert_follows(run.(compiler: Emily.Compiler), expected, @tolerance)

      assert_follows(
        run.(compiler: Emily.Compiler, debug: true, strict?: false),
        expected,
        @tolerance
      )
    end

    test "a model is built with the compiler's options among Axon's" do
      model = cnn()
      {x, _} = data({8, 8, 8, 1})
      options = [mode: :train, seed: 7, print_values: false, compiler: Emily.Compiler]

      {init, predict} = Axon.build(model, options)
      state = init.(Nx.to_template(x), Axon.ModelState.empty())
      assert %{prediction: prediction, state: %{}} = predict.(state, x)

      {init, predict} = Axon.build(model, Keyword.put(options, :compiler, Nx.Defn.Evaluator))
      expected_state = init.(Nx.to_template(x), Axon.ModelState.empty())

      for {layer, weights} <- expected_state.data, {weight, expected} <- weights do
        assert_equal(state.data[layer][weight], expected)
      end

      assert_equal(prediction, predict.(expected_state, x).prediction, tolerance: 1.0e-5)
    end
  end
end
