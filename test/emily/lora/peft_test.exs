# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.LoRA.PeftTest do
    # What PEFT has written, with what transformers computes of it: test/fixtures/peft/generate.py, which also computes
    # with what is written here.
    use ExUnit.Case, async: true

    import Emily.BackendCase

    alias Emily.{LoRA, Quantization, QuantizedWeight}

    @folder "test/fixtures/peft"
    @expected @folder |> Path.join("expected.json") |> File.read!() |> Jason.decode!()
    @layers [~r/self_attention\.query$/, ~r/ffn\.output$/]

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    defp base do
      {:ok, info} =
        Bumblebee.load_model({:local, @folder <> "/base"}, type: :f32, backend: Emily.Backend)

      info
    end

    defp logits(info) do
      {_, predict} = Axon.build(info.model, compiler: Emily.Compiler)
      predict.(info.params, %{"input_ids" => Nx.tensor(@expected["input_ids"])}).logits
    end

    defp expected(name), do: Nx.tensor(@expected[name], backend: Nx.BinaryBackend)

    defp copy(folder) do
      File.cp_r!(@folder <> "/adapter", folder)
      folder
    end

    defp change(folder, fun) do
      path = Path.join(folder, "adapter_config.json")
      File.write!(path, path |> File.read!() |> Jason.decode!() |> fun.() |> Jason.encode!())
      folder
    end

    defp tensors(folder) do
      for {name, lazy} <- Emily.Safetensors.read!(Path.join(folder, "adapter_model.safetensors")),
          into: %{},
          do: {name, Nx.to_tensor(lazy)}
    end

    test "PEFT's adapters compute what transformers does with them" do
      info = base()
      assert_equal(logits(info), expected("base"), tolerance: 2.0e-5)
      adapted = LoRA.load(info, @folder <> "/adapter")
      assert_equal(logits(adapted), expected("adapter"), tolerance: 2.0e-5)
      assert_equal(logits(LoRA.merge(adapted)), expected("adapter"), tolerance: 2.0e-5)
      assert %{"lora_key" => _} = adapted.params.data["decoder.blocks.0.ffn.output"]
      assert map_size(Axon.ModelState.trainable_parameters(adapted.params)) == 4
    end

    @tag :tmp_dir
    test "what is read and written is what PEFT has written", %{tmp_dir: tmp} do
      LoRA.save(LoRA.load(base(), @folder <> "/adapter"), tmp, base: "base")
      got = tensors(tmp)
      wanted = tensors(@folder <> "/adapter")
      assert Map.keys(got) == Map.keys(wanted)
      for {name, tensor} <- wanted, do: assert_equal(got[name], tensor)

      config = tmp |> Path.join("adapter_config.json") |> File.read!() |> Jason.decode!()
      peft = (@folder <> "/adapter/adapter_config.json") |> File.read!() |> Jason.decode!()

      for {name, value} <- config,
          name not in ["target_modules", "task_type"],
          do: assert({name, peft[name]} == {name, value})

      # PEFT is told it, or has a mapping to a class of Python's in its place.
      assert config["task_type"] == "CAUSAL_LM"

      assert config["target_modules"] ==
               for(
                 n <- 0..1,
                 m <- ~w(mlp.down_proj self_attn.q_proj),
                 do: "model.layers.#{n}.#{m}"
               )
    end

    for {name, pack?} <- [dense: false, packed: true] do
      test "a loaded model with #{name} weights is trained, dropouts and all, by its keys" do
        info = base()

        info =
          if unquote(pack?), do: Quantization.quantize(info, bits: 8, group_size: 32), else: info

        ids = Nx.tensor(@expected["input_ids"])
        batch = {%{"input_ids" => ids}, Nx.new_axis(ids[[.., 1..-1//1]], -1)}
        loss = &Emily.Training.sparse_cross_entropy(&1, &2.logits[[.., 0..-2//1]])

        train = fn key ->
          adapted = LoRA.apply(info, layers: @layers, dropout: 0.2, key: Nx.Random.key(key))
          options = [compiler: Emily.Compiler, loss: loss]
          batches = List.duplicate(batch, 20)
          {losses, state} = Emily.Training.train(adapted.model, adapted.params, batches, options)
          {losses, %{adapted | params: state}}
        end

        {losses, trained} = train.(1)
        assert List.last(losses) < 0.7 * hd(losses)
        assert %{"key" => _} = trained.params.data["decoder.blocks.0.self_attention_dropout"]
        assert {^losses, _} = train.(1)
        refute match?({^losses, _}, train.(2))

        merged = LoRA.merge(trained)
        assert_equal(logits(merged), logits(trained), tolerance: 1.0e-4)

        for part <- [:data, :parameters, :state],
            do:
              assert(
                Map.keys(Map.get(merged.params, part)) == Map.keys(Map.get(info.params, part))
              )
      end
    end

    test "keys of dropouts that a model has stay" do
      {init, _} = Axon.build(base().model, mode: :train, seed: 1)
      info = %{base() | params: init.(%{"input_ids" => Nx.template({2, 8}, :s64)}, base().params)}
      name = "decoder.blocks.0.self_attention_dropout"
      key = info.params.data[name]["key"]
      adapted = LoRA.apply(info, layers: @layers)
      assert_equal(adapted.params.data[name]["key"], key)
      assert_equal(LoRA.merge(adapted).params.data[name]["key"], key)
    end

    @tag :tmp_dir
    test "adapters over packed weights are written and read", %{tmp_dir: tmp} do
      packed = Quantization.quantize(base(), bits: 8, group_size: 32)
      adapters = LoRA.load(packed, @folder <> "/adapter")
      query = "decoder.blocks.0.self_attention.query"
      assert %QuantizedWeight{} = adapters.params.data[query]["kernel"]
      LoRA.save(adapters, tmp)
      assert_equal(logits(LoRA.load(packed, tmp)), logits(adapters))
      # Eight bits are near.
      assert_equal(logits(adapters), expected("adapter"), tolerance: 0.1)
    end

    @tag :tmp_dir
    test "the base of an architecture has its own names", %{tmp_dir: tmp} do
      {:ok, info} =
        Bumblebee.load_model({:local, @folder <> "/base"},
          type: :f32,
          backend: Emily.Backend,
          architecture: :base
        )

      LoRA.save(LoRA.apply(info, layers: @layers), tmp)
      assert "base_model.model.layers.0.self_attn.q_proj.lora_A.weight" in Map.keys(tensors(tmp))
    end

    @tag :tmp_dir
    test "adapters of another kind or of another model are refused by name", %{tmp_dir: tmp} do
      for {name, value} <- [
            {"peft_type", "IA3"},
            {"use_dora", true},
            {"use_rslora", true},
            {"bias", "all"},
            {"modules_to_save", ["lm_head"]},
            {"rank_pattern", %{"q_proj" => 4}}
          ] do
        folder = tmp |> copy() |> change(&Map.put(&1, name, value))

        message =
          ~r/load\/3 does not take adapters with #{name} = #{Regex.escape(inspect(value))}/

        assert_raise ArgumentError, message, fn -> LoRA.load(base(), folder) end
      end

      folder = tmp |> copy() |> change(&Map.put(&1, "r", 3))

      assert_raise ArgumentError,
                   ~r/expects lora_a of decoder.blocks.0.ffn.output as floats of shape {48, 3}, got shape {48, 2}/,
                   fn -> LoRA.load(base(), folder) end

      assert_raise ArgumentError, ~r/expects rank to be a positive integer, got: nil/, fn ->
        LoRA.load(base(), change(folder, &Map.delete(&1, "r")))
      end

      path = Path.join(copy(tmp), "adapter_model.safetensors")
      [{name, tensor} | rest] = Enum.sort(tensors(tmp))
      Safetensors.write!(path, Map.new(rest))
      assert_raise ArgumentError, ~r/has no lora_a for/, fn -> LoRA.load(base(), tmp) end

      Safetensors.write!(
        path,
        Map.new([{String.replace(name, "layers.0", "layers.7"), tensor} | rest])
      )

      assert_raise ArgumentError, ~r/no place for the tensor .*layers\.7/, fn ->
        LoRA.load(base(), tmp)
      end

      assert_raise File.Error, fn -> LoRA.load(base(), Path.join(tmp, "none")) end

      assert_raise ArgumentError, ~r/save\/3 got a model without adapters/, fn ->
        LoRA.save(base(), tmp)
      end
    end
  end
end
