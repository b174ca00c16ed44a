# Axon takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.LoRATest do
    use Emily.BackendCase, async: true

    import Emily.Training, only: [sparse_cross_entropy: 2]

    alias Axon.ModelState
    alias Emily.{LoRA, Quantization, QuantizedWeight}
    alias Polaris.Optimizers

    doctest Emily.LoRA, import: false

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    @ids [[3, 7, 90, 11, 5], [8, 4, 6, 5, 2]]

    defp model(module, opts) do
      opts =
        Keyword.merge(
          [
            architecture: :for_causal_language_modeling,
            vocab_size: 96,
            hidden_size: 64,
            intermediate_size: 128,
            num_blocks: 2,
            num_attention_heads: 4,
            max_positions: 32
          ],
          opts
        )

      spec = Bumblebee.configure(module, opts)
      model = Bumblebee.build_model(spec)
      {init, _} = Axon.build(model, seed: 7, mode: :train)
      params = init.(spec.__struct__.input_template(spec), ModelState.empty())
      %{model: model, params: params, spec: spec}
    end

    defp llama, do: model(Bumblebee.Text.Llama, num_key_value_heads: 2)

    defp logits(info, compiler \\ Emily.Compiler) do
      {_, predict} = Axon.build(info.model, compiler: compiler)
      predict.(info.params, %{"input_ids" => Nx.tensor(@ids)}).logits
    end

    # Zeros in B would hide what the adapters do.
    defp stirred(info) do
      data =
        for {layer, parameters} <- info.params.data, into: %{} do
          case parameters do
            %{"lora_b" => b} -> {layer, %{parameters | "lora_b" => Nx.add(wave(b), 0.01)}}
            _ -> {layer, parameters}
          end
        end

      put_in(info.params.data, data)
    end

    defp wave(t), do: t.shape |> Nx.iota(type: :f32) |> Nx.sin() |> Nx.multiply(0.05)

    # The formula in Nx.BinaryBackend.
    defp by_hand(x, layer, scale, dropped \\ nil) do
      [x, w, a, b, input] =
        Enum.map(
          [x, layer["kernel"], layer["lora_a"], layer["lora_b"], dropped || x],
          &on_binary/1
        )

      Nx.with_default_backend(Nx.BinaryBackend, fn ->
        Nx.add(Nx.dot(x, w), input |> Nx.dot(a) |> Nx.dot(b) |> Nx.multiply(scale))
      end)
    end

    defp on_binary(t), do: Nx.backend_copy(t, Nx.BinaryBackend)

    defp small(layers \\ & &1) do
      model = Axon.input("x", shape: {nil, 6}) |> Axon.dense(5, name: "value", use_bias: false)
      model = layers.(model)
      {init, _} = Axon.build(model, seed: 3)
      %{model: model, params: init.(Nx.template({2, 6}, :f32), ModelState.empty())}
    end

    defp x, do: Nx.iota({2, 6}, type: :f32) |> Nx.cos()

    test "a layer is x . W + alpha / rank * x . A . B" do
      info = small() |> LoRA.apply(rank: 3, alpha: 12) |> stirred()
      expected = by_hand(x(), info.params.data["value"], 4.0)

      for mode <- [:inference, :train], compiler <- [Emily.Compiler, Nx.Defn.Evaluator] do
        {_, predict} = Axon.build(info.model, compiler: compiler, mode: mode)

        case {mode, predict.(info.params, x())} do
          {:inference, y} -> assert_equal(y, expected, tolerance: 1.0e-6)
          {:train, %{prediction: y}} -> assert_equal(y, expected, tolerance: 1.0e-6)
        end
      end
    end

    test "A begins within the root of 1 / in, by the key, and B with zeros" do
      parameters = fn opts -> LoRA.apply(small(), [rank: 64] ++ opts).params.data["value"] end
      %{"lora_a" => a, "lora_b" => b} = parameters.([])
      bound = 1 / :math.sqrt(6)
      assert a |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() <= bound
      assert a |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() > 0.95 * bound
      assert abs(a |> Nx.mean() |> Nx.to_number()) < 0.1 * bound
      assert b |> Nx.equal(0) |> Nx.all() |> Nx.to_number() == 1

      assert_equal(a, parameters.(key: Nx.Random.key(0))["lora_a"])
      refute Nx.to_binary(a) == Nx.to_binary(parameters.(key: Nx.Random.key(1))["lora_a"])
    end

    test "layers without names of their own keep those that Axon counts" do
      info = small(&(&1 |> Axon.dense(4) |> Axon.dense(4) |> Axon.concatenate(Axon.dense(&1, 2))))
      adapted = info |> LoRA.apply(layers: ["dense_1"], rank: 1) |> stirred()
      assert Map.keys(adapted.params.data) == Map.keys(info.params.data)
      {_, plain} = Axon.build(info.model)
      {_, changed} = Axon.build(adapted.model)
      y = plain.(info.params, x())
      z = changed.(adapted.params, x())
      assert_equal(z[[.., 4..5]], y[[.., 4..5]])
      refute Nx.to_binary(z) == Nx.to_binary(y)
      {_, merged} = Axon.build(LoRA.merge(adapted).model)
      assert_equal(merged.(LoRA.merge(adapted).params, x()), z, tolerance: 1.0e-6)
    end

    test "a model of Bumblebee's begins as it was, and merges into what it has become" do
      info = llama()
      adapted = LoRA.apply(info, layers: [~r/self_attention\.(query|value)$/, ~r/ffn/], rank: 4)
      assert_equal(logits(adapted), logits(info))

      adapted = stirred(adapted)
      changed = logits(adapted)
      refute Nx.to_binary(changed) == Nx.to_binary(logits(info))
      assert_equal(changed, logits(adapted, Nx.Defn.Evaluator), tolerance: 1.0e-5)

      merged = LoRA.merge(adapted)
      assert_equal(logits(merged), changed, tolerance: 1.0e-5)

      assert %{merged | params: nil} |> Map.fetch!(:model) |> Map.fetch!(:nodes) ==
               info.model.nodes

      assert merged.params.frozen_parameters == %{}
      assert Map.keys(merged.params.data) == Map.keys(info.params.data)
    end

    test "the fused kernels take an adapted model, which merges as well" do
      adapted = llama() |> LoRA.apply(layers: [~r/query|value|ffn/]) |> stirred()
      fast = Emily.Bumblebee.FastKernels.apply(adapted)
      assert_equal(logits(fast), logits(adapted), tolerance: 1.0e-5)
      assert_equal(logits(LoRA.merge(fast)), logits(adapted), tolerance: 1.0e-5)
    end

    test "over packed kernels it is the same as over their dense numbers" do
      packed = Quantization.quantize(llama(), bits: 4, group_size: 32)
      info = packed |> LoRA.apply(layers: [~r/query|value/], rank: 4) |> stirred()
      layer = "decoder.blocks.1.self_attention.query"
      assert %QuantizedWeight{} = kernel = info.params.data[layer]["kernel"]
      x = Nx.iota({3, 64}, type: :f32) |> Nx.sin()
      dense = kernel |> QuantizedWeight.to_dense() |> Nx.transpose()
      expected = by_hand(x, %{info.params.data[layer] | "kernel" => dense}, 4.0)
      merged = LoRA.merge(info)
      assert_equal(Nx.dot(x, merged.params.data[layer]["kernel"]), expected, tolerance: 1.0e-5)
      assert_equal(logits(merged), logits(info), tolerance: 1.0e-5)
      assert %QuantizedWeight{} = merged.params.data["decoder.blocks.1.ffn.gate"]["kernel"]
    end

    # The next token of each but the last.
    defp train(info, steps, compiler) do
      ids = Nx.tensor(@ids)
      batch = {%{"input_ids" => ids}, Nx.new_axis(ids[[.., 1..-1//1]], -1)}
      loss = fn y, output -> sparse_cross_entropy(y, output.logits[[.., 0..-2//1]]) end
      batches = List.duplicate(batch, steps)
      Emily.Training.train(info.model, info.params, batches, compiler: compiler, loss: loss)
    end

    for {name, pack?} <- [dense: false, packed: true] do
      test "training moves the adapters only, over #{name} kernels" do
        info = llama()
        info = if unquote(pack?), do: Quantization.quantize(info, bits: 8), else: info
        info = LoRA.apply(info, layers: [~r/query|value|ffn/], rank: 4)
        {losses, state} = train(info, 30, Emily.Compiler)
        assert List.last(losses) < 0.8 * hd(losses), inspect(losses)

        for {layer, parameters} <- info.params.data, {name, before} <- parameters do
          same? = Nx.serialize({before}) == Nx.serialize({state.data[layer][name]})

          if name != "key",
            do: assert(same? == name not in ["lora_a", "lora_b"], "#{layer} #{name}")
        end

        {expected, _} = train(info, 1, Nx.Defn.Evaluator)
        for {a, b} <- Enum.zip(losses, expected), do: assert_in_delta(a, b, 1.0e-4 * b)
      end
    end

    test "Axon.Loop trains the adapters only, with dropout reproducible by key" do
      data = [{x(), Nx.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])}]

      run = fn key ->
        info =
          small(&Axon.dense(&1, 4, name: "head"))
          |> LoRA.apply(rank: 2, dropout: 0.5, key: Nx.Random.key(key))

        state =
          info.model
          |> Axon.Loop.trainer(:mean_squared_error, Optimizers.sgd(learning_rate: 0.1), log: 0)
          |> Axon.Loop.run(List.duplicate(data, 10) |> Enum.concat(), info.params,
            epochs: 1,
            compiler: Emily.Compiler
          )

        {info.params, state}
      end

      {before, state} = run.(5)

      for layer <- ["value", "head"],
          do: assert_equal(state.data[layer]["kernel"], before.data[layer]["kernel"])

      refute Nx.to_binary(state.data["value"]["lora_b"]) ==
               Nx.to_binary(before.data["value"]["lora_b"])

      refute Nx.to_binary(state.data["value"]["lora_key"]) ==
               Nx.to_binary(before.data["value"]["lora_key"])

      {_, again} = run.(5)
      assert_equal(again.data["value"]["lora_b"], state.data["value"]["lora_b"])
      {_, other} = run.(6)

      refute Nx.to_binary(other.data["value"]["lora_b"]) ==
               Nx.to_binary(state.data["value"]["lora_b"])
    end

    test "dropout drops, scales, and is off outside of training" do
      info = small() |> LoRA.apply(rank: 2, dropout: 0.5) |> stirred()
      {_, predict} = Axon.build(info.model)

      assert_equal(predict.(info.params, x()), by_hand(x(), info.params.data["value"], 8.0),
        tolerance: 1.0e-6
      )

      {_, predict} = Axon.build(info.model, mode: :train)
      %{prediction: y, state: %{"value" => %{"lora_key" => key}}} = predict.(info.params, x())
      layer = info.params.data["value"]
      {uniform, next} = Nx.Random.uniform(layer["lora_key"], shape: {2, 6}, type: :f32)
      assert_equal(key, next)
      kept = Nx.select(Nx.less(uniform, 0.5), Nx.divide(x(), 0.5), 0.0)

      assert_equal(y, by_hand(x(), layer, 8.0, kept), tolerance: 1.0e-6)
    end

    test "bad options, models and layers are refused by name" do
      info = small()

      for {opts, message} <- [
            {[rank: 0], "expects rank to be a positive integer, got: 0"},
            {[alpha: -1], "expects alpha to be a positive number, got: -1"},
            {[dropout: 1],
             "expects dropout to be a number of at least 0 and less than 1, got: 1"},
            {[layers: "value"], "expects layers to be a list of layers' names"},
            {[layers: []], "expects layers to name one at least"},
            {[layers: ["other"]], ~s(has no dense layer "other"; there are: value)},
            {[key: 1], "expects key to be a key of Nx.Random, got: 1"}
          ] do
        assert_raise ArgumentError, ~r/#{Regex.escape("Emily.LoRA.apply/2 " <> message)}/, fn ->
          LoRA.apply(info, opts)
        end
      end

      assert_raise ArgumentError, ~r/unknown keys \[:ranks\]/, fn ->
        LoRA.apply(info, ranks: 1)
      end

      adapted = LoRA.apply(info)

      assert_raise ArgumentError, ~r"apply/2 got a model that has adapters", fn ->
        LoRA.apply(adapted)
      end

      assert_raise ArgumentError, ~r"merge/1 got a model without adapters", fn ->
        LoRA.merge(info)
      end

      assert_raise ArgumentError, ~r"expects a map with an Axon model", fn -> LoRA.apply(%{}) end

      assert_raise ArgumentError, ~r"quantize/2 .*adapters", fn ->
        Quantization.quantize(adapted, bits: 8)
      end
    end
  end
end
