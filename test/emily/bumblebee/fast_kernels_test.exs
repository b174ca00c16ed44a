# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Bumblebee.FastKernelsTest do
    use Emily.FastKernelsCase, async: true

    doctest Emily.Bumblebee.FastKernels

    alias Bumblebee.Text.{Bert, Generation, Llama, Phi3}
    alias Emily.Bumblebee.FastKernels

    @options [vocab_size: 24, hidden_size: 16, intermediate_size: 20, num_blocks: 2] ++
               [num_attention_heads: 2]
    @decoder [architecture: :for_causal_language_modeling] ++ @options
    @bert [max_positions: 16] ++ @options
    @ids Nx.tensor([[3, 7, 9, 11, 5], [8, 4, 6, 5, 2]])
    @sides Nx.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    @inputs %{"input_ids" => @ids, "attention_mask" => @sides}

    describe "what is given back" do
      test "is of the kind that was given" do
        info = model(Bert, @bert)
        assert %Axon{} = FastKernels.apply(info.model)
        rewritten = FastKernels.apply(info)
        assert Map.delete(rewritten, :model) == Map.delete(info, :model)
        assert {%Axon{}, %{rewritten: counts}} = FastKernels.apply(info.model, report: true)
        assert counts == %{attention: 2, layer_norm: 5, gelu: 2}
        assert FastKernels.report(rewritten) == FastKernels.report(rewritten.model)
        assert FastKernels.report(info) == %{rewritten: %{}, left: %{}}
      end

      test "changes the recognised nodes only, in their function and its inputs" do
        %{model: model} = model(Bert, @bert)
        rewritten = FastKernels.apply(model)
        assert rewritten.output == model.output
        assert Map.keys(rewritten.nodes) == Map.keys(model.nodes)

        for {id, node} <- rewritten.nodes do
          same =
            if match?(%{emily: {:rewritten, _}}, node.meta),
              do: [:id, :name, :parameters, :opts, :policy, :hooks, :op_name, :mode],
              else: Map.keys(node)

          assert Map.take(node, same) == Map.take(model.nodes[id], same)
        end

        assert Axon.get_inputs(rewritten) == Axon.get_inputs(model)
        assert Axon.properties(rewritten) == Axon.properties(model)
      end

      test "is the same after a second time" do
        info = model(Llama, @decoder)
        once = FastKernels.apply(info)
        assert FastKernels.apply(once) == once
      end

      test "is nothing for what is no model" do
        for wrong <- [nil, %{}, %{model: 1}, :bert] do
          assert_raise ArgumentError, ~r/apply\/2 expects an Axon model or a map/, fn ->
            FastKernels.apply(wrong)
          end

          assert_raise ArgumentError, ~r/report\/1 expects an Axon model or a map/, fn ->
            FastKernels.report(wrong)
          end
        end

        assert_raise ArgumentError, ~r/unknown keys \[:reports\]/, fn ->
          FastKernels.apply(Axon.input("x"), reports: true)
        end
      end
    end

    describe "masks" do
      test "none where nothing is hidden" do
        bert = model(Bert, @bert)
        assert %{attention: 2} = kernels(bert, %{"input_ids" => @ids})
        assert %{masked: 2} = kernels(bert, @inputs)
        llama = model(Llama, @decoder)
        assert %{causal: 2} = kernels(llama, %{"input_ids" => @ids})
        assert %{masked: 2} = kernels(llama, @inputs)
      end

      test "none for a prompt into a cache that is known to be empty" do
        %{model: model, params: params, spec: spec} = model(Llama, @decoder)

        run = fn model, options ->
          {_, predict} = Axon.build(model, options)

          fn params, ids ->
            {batch, _} = Nx.shape(ids)
            cache = Generation.init_cache(spec, batch, 8, %{})
            mask = Nx.broadcast(1, ids)
            predict.(params, %{"input_ids" => ids, "attention_mask" => mask, "cache" => cache})
          end
        end

        rewritten = FastKernels.apply(model)
        assert %{causal: 2} = traced = traced(run.(rewritten, []), [params, @ids])
        refute traced[:masked]

        right = Nx.Defn.jit(run.(model, []), compiler: Nx.Defn.Evaluator).(params, @ids)
        got = Nx.Defn.jit(run.(rewritten, []), compiler: Emily.Compiler).(params, @ids)
        assert_near(got, right)
      end

      test "none for pieces of a prompt, one behind the other, in a cache whose filling is known" do
        %{model: model, params: params, spec: spec} = model(Llama, @decoder)

        # `pieces` are where they start and how long they are, `padding` is a row of the first mask.
        run = fn model, pieces, padding ->
          {_, predict} = Axon.build(model)

          fn params, ids ->
            {batch, length} = Nx.shape(ids)
            cache = Generation.init_cache(spec, batch, length + 2, %{})

            {logits, _} =
              Enum.map_reduce(pieces, cache, fn {start, count}, cache ->
                mask =
                  if start == 0 and padding,
                    do: Nx.stack(List.duplicate(Nx.tensor(padding), batch)),
                    else: Nx.broadcast(1, {batch, count})

                inputs = %{
                  "input_ids" => Nx.slice_along_axis(ids, start, count, axis: 1),
                  "attention_mask" => mask,
                  "position_ids" => Nx.add(Nx.iota({batch, count}, axis: 1), start),
                  "cache" => %{cache | offset: Nx.tensor(start)}
                }

                out = predict.(params, inputs)
                {out.logits, out.cache}
              end)

            List.to_tuple(logits)
          end
        end

        rewritten = FastKernels.apply(model)

        # One behind the other, with padding, with a gap, and one over another's end.
        for {pieces, padding, kinds} <- [
              {[{0, 2}, {2, 2}, {4, 1}], nil, %{causal: 6}},
              {[{0, 2}, {2, 2}, {4, 1}], [0, 1], %{cached: 6}},
              {[{0, 2}, {3, 2}], nil, %{causal: 2, cached: 2}},
              {[{0, 3}, {1, 1}, {2, 1}], nil, %{causal: 6}}
            ] do
          found = traced(run.(rewritten, pieces, padding), [params, @ids])
          assert Map.take(found, [:causal, :cached, :masked]) == kinds

          [right, got] =
            for {model, compiler} <- [{model, Nx.Defn.Evaluator}, {rewritten, Emily.Compiler}],
                do: Nx.Defn.jit(run.(model, pieces, padding), compiler: compiler).(params, @ids)

          assert_near(got, right)
        end
      end

      test "of heads" do
        inputs = Map.put(@inputs, "attention_head_mask", Nx.tensor([[1.0, 0.0], [0.5, 1.0]]))
        info = model(Bert, @bert)
        assert %{masked: 2} = kernels(info, inputs)
        assert_same(info, inputs)
      end

      test "that hide everything" do
        inputs = Map.put(@inputs, "attention_mask", Nx.tensor([[0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]))
        assert_same(model(Bert, @bert), inputs)
      end
    end

    describe "rotary scaling" do
      @llama3 %{
        type: :llama3,
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_max_positions: 16
      }

      for {name, max, strategy} <- [
            {"linear", 64, %{type: :linear, factor: 4.0}},
            {"dynamic, beyond the positions", 3, %{type: :dynamic, factor: 4.0}},
            {"dynamic, within them", 64, %{type: :dynamic, factor: 4.0}},
            {"Llama 3", 64, @llama3}
          ] do
        test name do
          strategy = unquote(Macro.escape(strategy))
          options = [max_positions: unquote(max), rotary_embedding_scaling_strategy: strategy]
          info = model(Llama, [num_key_value_heads: 1] ++ options ++ @decoder)
          assert %{rope: 4} = kernels(info, @inputs)
          assert_same(info, @inputs)
        end
      end

      for {name, original} <- [{"long", 3}, {"short", 12}] do
        test "LongRoPE, its #{name} factors" do
          strategy = %{
            type: :longrope,
            short_factor: [1.0, 1.5, 2.0, 2.5],
            long_factor: [1.0, 3.0, 6.0, 9.0],
            original_max_positions: unquote(original)
          }

          options = [max_positions: 48, activation: :silu]
          options = [rotary_embedding_scaling_strategy: strategy] ++ options ++ @decoder
          info = model(Phi3, options)
          assert %{rope: 4} = kernels(info, @inputs)
          assert_same(info, @inputs)
        end
      end

      test "by positions that are given in any order" do
        inputs = Map.put(@inputs, "position_ids", Nx.tensor([[4, 2, 2, 0, 1], [0, 0, 1, 2, 3]]))
        assert_same(model(Llama, @decoder), inputs)
      end
    end

    describe "what stays as it was" do
      test "attention whose weights are asked for" do
        info = model(Bert, @bert)
        options = [global_layer_options: [output_attentions: true, output_hidden_states: true]]
        assert kernels(info, @inputs, options) == %{layer_norm: 5, gelu: 2}
        assert %{attentions: {_, _}} = expected(info, @inputs, options)
        assert_same(info, @inputs, options)
      end

      test "attention with a dropout, in training" do
        trained = [mode: :train]
        dropping = model(Bert, trained ++ @bert)
        assert kernels(dropping, @inputs, trained) == %{layer_norm: 5, gelu: 2}
        plain = [mode: :train, dropout_rate: 0.0, attention_dropout_rate: 0.0]
        plain = model(Bert, plain ++ @bert)
        assert %{masked: 2} = kernels(plain, @inputs, trained)
        assert_same(plain, @inputs, trained)
      end

      test "a layer whose weights have a hook" do
        %{model: model} = info = model(Bert, @bert)

        hooked =
          Axon.map_nodes(model, fn
            %{op_name: :dropout, parent: [parent]} = node ->
              weights? = is_function(model.nodes[parent].op, 7)
              if weights?, do: %{node | hooks: [{:forward, :both, & &1}]}, else: node

            node ->
              node
          end)

        assert report(%{info | model: hooked}) == %{
                 rewritten: %{layer_norm: 5, gelu: 2},
                 left: %{{:attention, "a hook is attached to its weights"} => 2}
               }
      end

      test "a layer whose weights are of another type" do
        %{model: model} = info = model(Bert, @bert)
        policy = Axon.MixedPrecision.create_policy(compute: {:bf, 16})
        mixed = Axon.MixedPrecision.apply_policy(model, policy, only: [:dropout])

        assert %{left: %{{:attention, "its weights have another policy of types"} => 2}} =
                 report(%{info | model: mixed})
      end

      @tag :f64
      test "f64, which the kernels would round to f32" do
        model = Axon.input("x") |> Axon.layer_norm()
        x = Nx.tensor([[1.0, 2.0, 4.0]], type: :f64)
        params = %{"layer_norm_0" => %{"gamma" => x[0], "beta" => x[0]}}
        info = %{model: model, params: Axon.ModelState.new(params)}
        assert kernels(info, x) == %{}
        assert_same(info, x)
      end

      test "norms of another axis" do
        model = Axon.input("x", shape: {nil, 3, 4}) |> Axon.layer_norm(channel_index: 1)
        reason = "channel_index is 1, not -1"
        assert report(%{model: model}).left == %{{:layer_norm, reason} => 1}
      end
    end

    test "Axon's own RMS norm" do
      for upcast <- [:normalization, :all] do
        model = Axon.input("x") |> Axon.rms_norm(upcast: upcast, shift: 1.0, epsilon: 1.0e-3)
        x = Nx.tensor([[1.0, 2.0, 4.0]])
        params = Axon.ModelState.new(%{"rms_norm_0" => %{"gamma" => x[0]}})
        info = %{model: model, params: params}
        assert kernels(info, x) == %{rms_norm: 1}
        assert_same(info, x)
      end
    end

    test "bf16 keeps its type and its meaning" do
      for {module, options} <- [{Llama, @decoder}, {Bert, @bert}] do
        %{model: model, params: params} = info = model(module, options)
        right = expected(info, @inputs)
        policy = Axon.MixedPrecision.create_policy(compute: {:bf, 16}, output: {:bf, 16})
        model = Axon.MixedPrecision.apply_policy(model, policy)
        got = actual(%{model: model, params: params}, @inputs)
        key = if module == Llama, do: :logits, else: :hidden_state
        assert Nx.type(got[key]) == {:bf, 16}
        assert %{masked: 2} = kernels(%{model: model, params: params}, @inputs)
        # Eight bits of mantissa, through two blocks.
        difference = Nx.subtract(Nx.backend_copy(got[key], Nx.BinaryBackend), right[key])
        worst = difference |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
        assert worst <= 0.1 * (right[key] |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number())
      end
    end

    test "gradients" do
      %{model: model, params: params} = model(Llama, [num_key_value_heads: 1] ++ @decoder)

      gradient = fn model, compiler ->
        {_, predict} = Axon.build(model)

        loss = fn params, inputs -> Nx.sum(Nx.sin(predict.(params, inputs).logits)) end
        grad = fn params, inputs -> Nx.Defn.grad(params, &loss.(&1, inputs)) end
        Nx.Defn.jit(grad, compiler: compiler).(params, @inputs)
      end

      right = gradient.(model, Nx.Defn.Evaluator)
      assert_near(gradient.(FastKernels.apply(model), Emily.Compiler).data, right.data)
    end

    test "greedy generation gives the tokens of the unmodified model" do
      info = model(Llama, [num_key_value_heads: 1] ++ @decoder)
      config = %Bumblebee.Text.GenerationConfig{max_new_tokens: 6, pad_token_id: 0}
      inputs = Map.put(@inputs, "seed", Nx.tensor([1, 2]))
      inputs = %{inputs | "attention_mask" => Nx.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])}

      tokens = fn model, compiler ->
        generate = Generation.build_generate(model, info.spec, config)
        Nx.Defn.jit(generate, compiler: compiler).(info.params, inputs).token_ids
      end

      right = tokens.(info.model, Nx.Defn.Evaluator)
      assert Nx.shape(right) == {2, 6}
      got = tokens.(FastKernels.apply(info.model), Emily.Compiler)
      assert Nx.to_list(got) == Nx.to_list(right)
    end
  end
end
