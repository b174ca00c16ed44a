# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Safetensors.PackedTest do
    # Small models of random numbers that mlx-lm quantized and wrote, against what mlx-lm computes of them:
    # test/fixtures/mlx/generate.py.
    use ExUnit.Case, async: true

    alias Emily.{QuantizedWeight, Safetensors}

    @moduletag :tmp_dir
    @fixtures Path.expand("../../fixtures/mlx", __DIR__)

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    defp folder(name), do: Path.join(@fixtures, name)

    defp off(%{model: model, params: params}, name) do
      expected = name |> folder() |> Path.join("expected.json") |> File.read!() |> Jason.decode!()
      inputs = %{"input_ids" => Nx.tensor(expected["input_ids"])}
      %{logits: logits} = Axon.predict(model, params, inputs)
      off = logits[0] |> Nx.subtract(Nx.tensor(expected["logits"])) |> Nx.abs()
      off |> Nx.reduce_max() |> Nx.to_number()
    end

    # mlx-lm computes in the type of the scales; the answers are of the size of one to ten.
    for {name, mode, bound} <- [
          {"llama-affine", "affine", 1.0e-4},
          {"llama-mixed", "affine", 1.0e-4},
          {"llama-mxfp4", "mxfp4", 1.0e-4},
          {"llama-mxfp8", "mxfp8", 1.0e-4},
          {"llama-nvfp4", "nvfp4", 1.0e-4},
          {"phi3-affine", "affine", 1.0e-4},
          {"qwen3-bf16", "affine", 0.15}
        ] do
      test "#{name} computes what mlx-lm does" do
        {:ok, info} = Safetensors.load_model(folder(unquote(name)))
        assert off(info, unquote(name)) < unquote(bound)

        kernels = for {_, %{"kernel" => kernel}} <- info.params.data, do: kernel
        packed = for %QuantizedWeight{mode: unquote(mode)} = weight <- kernels, do: weight
        # mlx-lm leaves out rows that are no whole groups.
        assert length(packed) >= 10
        assert Enum.all?(packed, &match?(%Emily.Backend{}, &1.value.data))
      end
    end

    test "layers have the bits and the groups that they are given" do
      {:ok, %{params: %{data: data}}} = Safetensors.load_model(folder("llama-mixed"))
      assert %{bits: 8, group_size: 32} = data["decoder.blocks.1.ffn.gate"]["kernel"]
      assert %{bits: 4, group_size: 64} = data["decoder.blocks.1.ffn.intermediate"]["kernel"]
      assert %Nx.Tensor{} = data["decoder.blocks.1.self_attention.output"]["kernel"]
    end

    test "tied embeddings share one packed weight" do
      {:ok, %{params: %{data: data}}} = Safetensors.load_model(folder("llama-affine"))
      embedding = data["embedder.token_embedding"]["kernel"]

      assert embedding.value.data.ref ==
               data["language_modeling_head.output"]["kernel"].value.data.ref
    end

    for name <- ["llama-affine", "llama-mixed", "llama-mxfp4", "llama-nvfp4", "qwen3-bf16"] do
      test "#{name} is written as mlx-lm wrote it", %{tmp_dir: target} do
        from = folder(unquote(name))
        options = if unquote(name) =~ "bf16", do: [type: :bf16], else: []
        {:ok, info} = Safetensors.load_model(from, options)
        assert Safetensors.save_model(info, target, from: from) == :ok

        [written, theirs] =
          for folder <- [target, from],
              do: Safetensors.read!(Path.join(folder, "model.safetensors"))

        assert Map.keys(written) == Map.keys(theirs)

        for {name, tensor} <- theirs do
          assert {name, tensor.type, tensor.shape} ==
                   {name, written[name].type, written[name].shape}

          [a, b] = for lazy <- [tensor, written[name]], do: Nx.to_binary(Nx.to_tensor(lazy))
          assert a == b, name
        end

        [written, theirs] =
          for folder <- [target, from],
              do: folder |> Path.join("config.json") |> File.read!() |> Jason.decode!()

        assert written == Map.delete(theirs, "quantization_config")
        assert File.exists?(Path.join(target, "expected.json"))
      end
    end

    test "what Emily packs is read again", %{tmp_dir: target} do
      from = folder("llama-mixed")
      {:ok, info} = Safetensors.load_model(from)

      dense =
        Map.new(info.params.data, fn {layer, parameters} -> {layer, dense(layer, parameters)} end)

      info = %{info | params: %{info.params | data: dense}}
      packed = Emily.Quantization.quantize(info, bits: 8, group_size: 32, head: true)
      :ok = Safetensors.save_model(packed, target, from: from)
      {:ok, loaded} = Safetensors.load_model(target)
      assert Emily.Quantization.report(loaded) == Emily.Quantization.report(packed)
      assert off(loaded, "llama-mixed") < 0.5
    end

    defp dense(layer, %{"kernel" => %QuantizedWeight{} = weight} = parameters) do
      numbers = QuantizedWeight.to_dense(weight)
      rows? = layer =~ "embedding" or layer =~ "head"
      %{parameters | "kernel" => if(rows?, do: numbers, else: Nx.transpose(numbers))}
    end

    defp dense(_layer, parameters), do: parameters

    test "a folder of a cache has its main revision", %{tmp_dir: cache} do
      snapshot = Path.join(cache, "snapshots/0123abcd")
      File.mkdir_p!(Path.join(cache, "refs"))
      File.mkdir_p!(Path.join(cache, "snapshots"))
      File.write!(Path.join(cache, "refs/main"), "0123abcd\n")
      File.cp_r!(folder("llama-affine"), snapshot)
      {:ok, info} = Safetensors.load_model(cache)
      assert off(info, "llama-affine") < 1.0e-4
    end

    describe "refused is" do
      defp copy(name, target, change) do
        from = folder(name)
        File.cp!(Path.join(from, "config.json"), Path.join(target, "config.json"))

        tensors =
          for {name, lazy} <- Safetensors.read!(Path.join(from, "model.safetensors")),
              into: %{},
              do: {name, Nx.to_tensor(lazy)}

        :ok = Elixir.Safetensors.write!(Path.join(target, "model.safetensors"), change.(tensors))
        target
      end

      defp config(target, change) do
        path = Path.join(target, "config.json")
        File.write!(path, path |> File.read!() |> Jason.decode!() |> change.() |> Jason.encode!())
      end

      test "a packed weight that lacks a part or has another shape", %{tmp_dir: target} do
        layer = "model.layers.0.self_attn.q_proj"

        for {change, message} <- [
              {&Map.delete(&1, layer <> ".weight"), ~r/no "#{layer}.weight"/},
              {&Map.delete(&1, layer <> ".scales"), ~r/"#{layer}.weight" is packed, but/},
              {&Map.delete(&1, layer <> ".biases"), ~r/no "#{layer}.biases"/},
              {&Map.put(&1, layer <> ".scales", Nx.iota({64, 3}, type: :f32)),
               ~r/#{layer}: .*scales of shape \{64, 2\}/},
              {&Map.put(&1, layer <> ".weight", Nx.iota({64, 8}, type: :s32)),
               ~r/#{layer}: .*value of type u32/},
              {&Map.put(&1, layer <> ".biases", Nx.iota({64, 2}, type: :f16)),
               ~r/#{layer}: .*biases of the type of scales/},
              {&Map.merge(&1, %{
                 (layer <> ".weight") => Nx.iota({32, 8}, type: :u32),
                 (layer <> ".scales") => Nx.iota({32, 2}, type: :f32),
                 (layer <> ".biases") => Nx.iota({32, 2}, type: :f32)
               }), ~r/#{layer}: has the shape \{32, 64\}, where .*query takes \{64, 64\}/},
              {fn tensors ->
                 for part <- ~w(weight scales biases), reduce: tensors do
                   tensors ->
                     Map.put(tensors, "model.other." <> part, tensors["#{layer}.#{part}"])
                 end
               end, ~r/model.other: has no place in the model/}
            ] do
          copy("llama-affine", target, change)
          assert_raise ArgumentError, message, fn -> Safetensors.load_model(target) end
        end
      end

      test "a quantization that there is not", %{tmp_dir: target} do
        copy("llama-affine", target, & &1)

        for {quantization, message} <- [
              {%{"bits" => 7, "group_size" => 32}, ~r/bits of mode "affine" to be/},
              {%{"bits" => 4, "group_size" => 48}, ~r/group_size of mode "affine" to be/},
              {%{"bits" => 4, "group_size" => 64}, ~r/scales of shape/},
              {%{"bits" => "4", "group_size" => 32}, ~r/bits of mode/},
              {%{"mode" => "int4", "bits" => 4}, ~r/mode to be one of/},
              {%{"mode" => ["affine"]}, ~r/mode to be one of/},
              {4, ~r/quantization is 4, no object/}
            ] do
          config(target, &Map.put(&1, "quantization", quantization))
          assert_raise ArgumentError, message, fn -> Safetensors.load_model(target) end
        end

        config(target, &Map.delete(&1, "quantization"))
        message = ~r/scales" is there, but config.json has no quantization/
        assert_raise ArgumentError, message, fn -> Safetensors.load_model(target) end
      end

      test "what cannot be written", %{tmp_dir: target} do
        from = folder("phi3-affine")
        {:ok, info} = Safetensors.load_model(from)
        message = ~r/a part of another tensor in files/
        save = fn info, opts -> Safetensors.save_model(info, target, opts) end
        assert_raise ArgumentError, message, fn -> save.(info, from: from) end
        assert_raise ArgumentError, ~r/needs from:/, fn -> save.(info, []) end
        assert_raise ArgumentError, ~r/unknown keys/, fn -> save.(info, to: "") end

        {:ok, tied} = Safetensors.load_model(folder("llama-affine"))
        head = ["language_modeling_head.output", "kernel"]
        other = update_in(tied.params.data, &put_in(&1, head, Nx.iota({40, 64}, type: :f32)))
        message = ~r/two layers with numbers of their own for model.embed_tokens.weight/
        assert_raise ArgumentError, message, fn -> save.(other, from: folder("llama-affine")) end
      end
    end
  end
end
