# Axon takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Axon) do
  Code.require_file("../native/support/settled_memory.exs", __DIR__)

  defmodule Emily.OptimizersTest do
    # Polaris's optimisers, schedules and updates, each one program a step that is given its state. Alone, since it counts
    # memory.
    use Emily.BackendCase, async: false

    import Emily.Training

    alias Axon.ModelState
    alias Polaris.{Optimizers, Schedules, Updates}

    @compiled [compiler: Emily.Compiler, donate: [0, 1]]

    # The losses of steps, with the state that each gives the next.
    defp losses(model, optimizer, batches, options, state) do
      {init, step} = step(model, optimizer: optimizer)
      begun = ModelState.trainable_parameters(state)
      optimizer = Nx.Defn.jit_apply(init, [begun], Keyword.delete(options, :donate))
      step = Nx.Defn.jit(step, options)

      {losses, _} =
        Enum.map_reduce(batches, {state, optimizer}, fn {x, y}, {state, optimizer} ->
          {loss, state, optimizer} = step.(state, optimizer, x, y)
          {Nx.to_number(loss), {state, optimizer}}
        end)

      losses
    end

    defp small do
      Axon.input("x", shape: {nil, 64})
      |> Axon.dense(8, activation: :tanh)
      |> Axon.dense(10, activation: :softmax)
    end

    @rate 1.0e-2

    defp optimizers do
      each =
        for name <- ~w(adabelief adagrad adam adamw lamb radam rmsprop sgd yogi)a,
            do: {name, apply(Optimizers, name, [[learning_rate: @rate]])}

      scheduled =
        for {name, schedule} <- [
              linear: Schedules.linear_decay(@rate, steps: 4),
              exponential: Schedules.exponential_decay(@rate, transition_steps: 2),
              cosine: Schedules.cosine_decay(@rate, decay_steps: 4),
              polynomial: Schedules.polynomial_decay(@rate, transition_steps: 4)
            ],
            do: {name, Optimizers.adam(learning_rate: schedule)}

      each ++
        scheduled ++
        [
          noisy: Optimizers.noisy_sgd(learning_rate: @rate, seed: 3),
          momentum: Optimizers.sgd(learning_rate: @rate, momentum: 0.9, nesterov: true),
          centered: Optimizers.rmsprop(learning_rate: @rate, centered: true, momentum: 0.9),
          clipped: [delta: 1.0e-3] |> Updates.clip() |> Updates.scale(-1.0),
          by_norm: [max_norm: 0.1] |> Updates.clip_by_global_norm() |> Updates.scale(-0.1),
          decayed: [decay: 0.1] |> Updates.add_decayed_weights() |> Updates.scale(-@rate)
        ]
    end

    test "each follows Nx.BinaryBackend" do
      data = digits()
      batches = batches(data, 16, 6)

      for {name, optimizer} <- optimizers() do
        state = initial(small(), elem(data, 0))
        expected = losses(small(), optimizer, batches, [compiler: Nx.Defn.Evaluator], state)
        losses = losses(small(), optimizer, batches, @compiled, state)
        assert expected == Enum.uniq(expected)

        for {loss, expected} <- Enum.zip(losses, expected),
            do: assert(abs(loss - expected) <= 1.0e-4 * expected, "#{name}: #{inspect(losses)}")
      end
    end

    test "a step is one program, which calls nothing" do
      data = digits()
      state = initial(small(), elem(data, 0))
      :telemetry.attach("steps", [:emily, :compile, :stop], &Emily.Telemetry.echo/4, self())
      on_exit(fn -> :telemetry.detach("steps") end)
      optimizer = Updates.clip_by_global_norm() |> Updates.compose(Optimizers.adam())
      losses(small(), optimizer, batches(data, 16, 4), @compiled, state)
      assert_received {_, %{calls: 0}, _init}
      assert_received {_, %{calls: 0, operations: operations}, _step}
      assert operations > 50
      refute_received {[:emily, :compile, :stop], _, _}
    end

    defp mlp do
      dense = &Axon.dense(&1, 1024, activation: :relu)
      Axon.input("x", shape: {nil, 1024}) |> dense.() |> dense.() |> dense.() |> Axon.dense(10)
    end

    defp cnn do
      for channels <- [64, 128, 256, 256], reduce: Axon.input("x", shape: {nil, 64, 64, 3}) do
        x ->
          Axon.conv(x, channels, kernel_size: 3, padding: :same, strides: 2, activation: :relu)
      end
      |> Axon.flatten()
      |> Axon.dense(10)
    end

    # The inputs of the layers, which the gradient needs.
    @cnn 32 *
           (3 * 64 * 64 + 64 * 32 * 32 + 128 * 16 * 16 + 256 * 8 * 8 + 256 * 4 * 4)

    for {name, shape, activations} <- [
          {:mlp, {256, 1024}, 4 * 256 * 1024},
          {:cnn, {32, 64, 64, 3}, @cnn}
        ] do
      @tag :cpu
      test "a step of the #{name} with Adam has little beside parameters, moments and activations" do
        model = unquote(name)()
        # What is given is written over on a CPU.
        cpu = {Emily.Backend, device: :cpu}
        options = @compiled ++ [device: :cpu]
        x = Nx.iota(unquote(Macro.escape(shape)), type: :f32, backend: cpu) |> Nx.sin()
        y = Nx.equal(Nx.iota({Nx.axis_size(x, 0), 1}), Nx.iota({1, 10}))
        loss = &Axon.Losses.categorical_cross_entropy(&1, &2, from_logits: true, reduction: :mean)
        {init, step} = step(model, loss: loss)
        step = Nx.Defn.jit(step, options)

        run = fn {state, optimizer} ->
          {_loss, state, optimizer} = tap(step.(state, optimizer, x, y), &Emily.eval/1)
          {state, optimizer}
        end

        Emily.eval({x, y})
        before = SettledMemory.active()
        {begin, _} = Axon.build(model, seed: 1, compiler: Emily.Compiler, device: :cpu)
        state = begin.(Nx.to_template(x), ModelState.empty())
        optimizer = Nx.Defn.jit_apply(init, [state.data], compiler: Emily.Compiler, device: :cpu)
        bytes = &Enum.sum(for t <- Nx.Defn.Composite.flatten_list([&1]), do: Nx.byte_size(t))
        must = bytes.({state, optimizer}) + 4 * unquote(activations)
        first = run.({state, optimizer})
        held = SettledMemory.active() - before + Nx.byte_size(x)
        {_, more} = SettledMemory.peak(fn -> first |> run.() |> run.() end)
        # The same each time: of the MLP 1.0999.
        assert held + more <= 1.1 * must, "#{(held + more) / must}"
      end
    end
  end
end
