# Axon takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Axon) do
  defmodule Emily.TrainingTest do
    # Models learn real data: the first steps follow those of Nx.BinaryBackend, and the rest reaches what the
    # model is for.
    use Emily.BackendCase, async: true

    import Emily.Training

    alias Axon.ModelState
    alias Polaris.Optimizers

    # Each step takes the last one's parameters, so roundings add up. Relative to the first loss.
    @tolerance 1.0e-4

    @compiled [compiler: Emily.Compiler]

    defp mlp do
      Axon.input("x", shape: {nil, 64})
      |> Axon.dense(32, activation: :relu)
      |> Axon.dense(10, activation: :softmax)
    end

    defp dropped(seed) do
      Axon.input("x", shape: {nil, 64})
      |> Axon.dense(32, activation: :relu)
      |> Axon.dropout(rate: 0.3, seed: seed)
      |> Axon.dense(10, activation: :softmax)
    end

    defp cnn do
      Axon.input("x", shape: {nil, 64})
      |> Axon.reshape({:batch, 8, 8, 1})
      |> Axon.conv(8, kernel_size: 3, padding: :same, activation: :relu)
      |> Axon.max_pool(kernel_size: 2)
      |> Axon.conv(16, kernel_size: 3, activation: :relu)
      |> Axon.flatten()
      |> Axon.dense(10, activation: :softmax)
    end

    # The rows of a digit one after the other.
    defp lstm do
      {sequence, _} =
        Axon.input("x", shape: {nil, 64}) |> Axon.reshape({:batch, 8, 8}) |> Axon.lstm(24)

      sequence |> Axon.nx(& &1[[.., -1]]) |> Axon.dense(10, activation: :softmax)
    end

    defp characters(letters) do
      {sequence, _} =
        Axon.input("x", shape: {nil, 12}) |> Axon.embedding(letters, 16) |> Axon.gru(32)

      Axon.dense(sequence, letters)
    end

    defp assert_follows(losses, expected) do
      worst = losses |> Enum.zip_with(expected, &abs(&1 - &2)) |> Enum.max()
      assert worst <= @tolerance * hd(expected), "off by #{worst}: #{inspect(losses)}"
    end

    # Digits that were not among those of the training, of other writers. One in ten is chance.
    defp accuracy(model, state, {x, y}) do
      {_, predict} = Axon.build(model, @compiled)
      right = Nx.equal(Nx.argmax(predict.(state, x), axis: 1), Nx.argmax(y, axis: 1))
      right |> Nx.mean() |> Nx.to_number()
    end

    defp split({x, y}), do: {{x[0..399], y[0..399]}, {x[400..499], y[400..499]}}

    for {name, follow, steps, accuracy} <- [
          {:mlp, 50, 200, 0.6},
          {:cnn, 8, 120, 0.6},
          {:lstm, 8, 150, 0.3}
        ] do
      test "#{name}: digits" do
        model = unquote(name)()
        {train, test} = split(digits())
        state = initial(model, elem(train, 0))
        batches = batches(train, 16, unquote(steps))

        few = Enum.take(batches, unquote(follow))
        {expected, _} = train(model, state, few, compiler: Nx.Defn.Evaluator)
        {losses, trained} = train(model, state, batches, @compiled)
        assert_follows(Enum.take(losses, unquote(follow)), expected)
        got = accuracy(model, trained, test)
        assert got >= unquote(accuracy), "#{got} of the digits"
      end
    end

    test "characters of the licence" do
      {{x, _} = text, letters} = license(12)
      model = characters(letters)
      state = initial(model, x)
      options = [loss: &sparse_cross_entropy/2]

      few = batches(text, 4, 8)
      {expected, _} = train(model, state, few, [compiler: Nx.Defn.Evaluator] ++ options)
      {losses, _} = train(model, state, few, @compiled ++ options)
      assert_follows(losses, expected)

      {losses, _} = train(model, state, batches(text, 32, 250), @compiled ++ options)

      # What the frequencies of the characters alone allow.
      counts = text |> elem(1) |> Nx.to_flat_list() |> Enum.frequencies() |> Map.values()
      total = Enum.sum(counts)
      entropy = -Enum.sum(for c <- counts, do: c / total * :math.log(c / total))
      last = losses |> Enum.take(-20) |> Enum.sum() |> Kernel./(20)
      assert last < 0.9 * entropy, "#{last} of #{entropy}"
    end

    # The loss of all digits after as many steps in f32 and in bf16.
    test "bf16 reaches f32's loss within 1 %, by Axon's policy and by Emily.MixedPrecision" do
      model = mlp()
      {x, y} = data = digits()
      state = initial(model, x)
      batches = batches(data, 50, 60)

      loss = fn {_losses, trained} ->
        {_, predict} = Axon.build(model, @compiled)
        for {_, w} <- trained.data, {_, t} <- w, do: assert(Nx.type(t) == {:f, 32})
        y |> cross_entropy(predict.(trained, x)) |> Nx.to_number()
      end

      optimizer = [optimizer: Optimizers.adam(learning_rate: 2.0e-3)]
      f32 = loss.(train(model, state, batches, @compiled ++ optimizer))

      policy =
        Axon.MixedPrecision.create_policy(params: {:f, 32}, compute: {:bf, 16}, output: {:f, 32})

      mixed = Axon.MixedPrecision.apply_policy(model, policy)
      bf16 = loss.(train(mixed, state, batches, @compiled ++ optimizer))

      cast = [cast: &Emily.MixedPrecision.cast_params(&1, :bf16)]
      halved = for {x, y} <- batches, do: {Nx.as_type(x, :bf16), y}
      own = loss.(train(model, state, halved, @compiled ++ optimizer ++ cast))

      for {name, got} <- [policy: bf16, own: own] do
        assert got != f32
        assert abs(got - f32) <= 0.01 * f32, "#{name}: #{got}, and #{f32} in f32"
      end
    end

    test "dropout is reproducible by its key" do
      data = digits()
      batches = batches(data, 50, 10)

      losses = fn seed ->
        model = dropped(seed)
        {losses, _} = train(model, initial(model, elem(data, 0)), batches, @compiled)
        losses
      end

      first = losses.(3)
      assert losses.(3) == first
      assert losses.(4) != first
    end

    @tag :capture_log
    @tag :tmp_dir
    test "a checkpoint of Axon's goes on as if nothing had been", %{tmp_dir: folder} do
      data = batches(digits(), 50, 10)
      model = dropped(3)

      loop = fn ->
        Axon.Loop.trainer(
          model,
          :categorical_cross_entropy,
          Optimizers.adam(learning_rate: 1.0e-2),
          log: 0
        )
      end

      # Each step takes the last one's state, which a checkpoint has written by then.
      run = fn loop, epochs, state ->
        Axon.Loop.run(loop, data, state, [epochs: epochs, donate: [2]] ++ @compiled)
      end

      state = initial(model, data |> hd() |> elem(0))
      whole = loop.() |> Axon.Loop.checkpoint(path: folder) |> run.(2, state)
      assert [first, _second] = folder |> File.ls!() |> Enum.sort()
      restored = folder |> Path.join(first) |> File.read!() |> Axon.Loop.deserialize_state()
      rest = loop.() |> Axon.Loop.from_state(restored) |> run.(1, %{})

      for {layer, weights} <- whole.data, {weight, expected} <- weights do
        assert_equal(rest.data[layer][weight], expected)
      end

      # Read onto Nx.BinaryBackend, whatever is the default.
      path = Path.join(folder, "trained")
      File.write!(path, Nx.serialize(whole))
      %ModelState{} = read = path |> File.read!() |> Nx.deserialize()

      for {layer, weights} <- whole.data, {weight, expected} <- weights do
        assert Nx.to_binary(read.data[layer][weight]) == Nx.to_binary(expected)
      end
    end
  end
end
