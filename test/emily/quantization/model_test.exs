# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Quantization.ModelTest do
    use ExUnit.Case, async: true

    doctest Emily.Quantization, only: [quantize: 2]

    alias Emily.{Quantization, QuantizedWeight}

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    @sizes [
      vocab_size: 96,
      hidden_size: 64,
      intermediate_size: 128,
      num_blocks: 2,
      num_attention_heads: 4,
      max_positions: 32
    ]

    defp llama, do: model(Bumblebee.Text.Llama, num_key_value_heads: 2)

    defp model(module, opts) do
      opts = [architecture: :for_causal_language_modeling] ++ @sizes ++ opts

      opts =
        if module == Bumblebee.Text.GptNeoX, do: Keyword.delete(opts, :max_positions), else: opts

      spec = Bumblebee.configure(module, opts)
      model = Bumblebee.build_model(spec)
      {init, _} = Axon.build(model, seed: 7)
      params = init.(spec.__struct__.input_template(spec), Axon.ModelState.empty())
      %{model: model, params: params, spec: spec}
    end

    defp logits(info, compiler) do
      {_, predict} = Axon.build(info.model, compiler: compiler)
      ids = Nx.tensor([[3, 7, 90, 11, 5], [8, 4, 6, 5, 2]])
      predict.(info.params, %{"input_ids" => ids}).logits
    end

    # The same model with dense weights of the packed ones' numbers.
    defp dense(%{params: params} = info) do
      layers = Axon.properties(info.model)

      data =
        Map.new(params.data, fn {layer, parameters} ->
          {layer,
           Map.new(parameters, fn
             {name, %QuantizedWeight{} = weight} ->
               dense = QuantizedWeight.to_dense(weight)
               {name, if(layers[layer] == :dense, do: Nx.transpose(dense), else: dense)}

             other ->
               other
           end)}
        end)

      %{info | params: %{params | data: data}}
    end

    defp assert_close(got, wanted, tolerance) do
      off = got |> Nx.subtract(wanted) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
      size = wanted |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
      assert off <= tolerance * size, "off by #{off} of #{size}"
    end

    test "a packed model is the model of its packed numbers" do
      info = llama()

      for opts <- [
            [bits: 8],
            [bits: 4, head: true, embedding: true],
            [mode: "mxfp8", head: true],
            [mode: "nvfp4"],
            [bits: 3, group_size: 32]
          ] do
        packed = Quantization.quantize(info, opts)
        wanted = logits(%{dense(packed) | model: info.model}, Nx.Defn.Evaluator)

        for compiler <- [Nx.Defn.Evaluator, Emily.Compiler],
            do: assert_close(logits(packed, compiler), wanted, 1.0e-5)
      end

      packed = Quantization.quantize(info, bits: 8, group_size: 32)
      assert_close(logits(packed, Emily.Compiler), logits(info, Emily.Compiler), 0.03)
    end

    for {module, opts, packed} <- [
          {Bumblebee.Text.Bert, [], 2 * 6 + 1},
          {Bumblebee.Text.Gpt2, [], 2 * 6},
          {Bumblebee.Text.GptNeoX, [], 2 * 6},
          {Bumblebee.Text.Mistral, [num_key_value_heads: 1, attention_window_size: 2], 2 * 7},
          {Bumblebee.Text.Phi, [], 2 * 6},
          {Bumblebee.Text.Phi3, [activation: :silu], 2 * 7},
          {Bumblebee.Text.Gemma,
           [activation: :gelu, num_key_value_heads: 1, attention_head_size: 16], 2 * 7},
          {Bumblebee.Text.Qwen3, [num_key_value_heads: 1, attention_head_size: 16], 2 * 7}
        ] do
      test "#{inspect(module)} in 8 bits agrees with itself" do
        info = model(unquote(module), unquote(opts))
        packed = Quantization.quantize(info, bits: 8, group_size: 32)
        names = packed |> Quantization.report() |> Map.fetch!(:packed) |> Map.keys()
        assert length(names) == unquote(packed), inspect(names)
        assert_close(logits(packed, Emily.Compiler), logits(info, Emily.Compiler), 0.05)
      end
    end

    test "report/1 says what is packed, and its bytes" do
      info = llama()

      packed =
        Quantization.quantize(info,
          bits: 4,
          except: ["decoder.blocks.0.ffn.gate", ~r/blocks\.1\./]
        )

      report = Quantization.report(packed)
      names = Map.keys(report.packed)
      assert length(names) == 6 and Enum.all?(names, &(&1 =~ "blocks.0."))
      assert is_map_key(report.dense, "decoder.blocks.0.ffn.gate")
      assert is_map_key(report.dense, "embedder.token_embedding")
      gate = report.packed["decoder.blocks.0.ffn.intermediate"]
      # 4 bits a number, and a scale and a bias of f32 for 64.
      assert gate == %{
               mode: "affine",
               bits: 4,
               group_size: 64,
               shape: {128, 64},
               bytes: 128 * (32 + 8)
             }

      whole = Quantization.report(info)
      assert whole.packed == %{}
      saved = for {name, entry} <- report.packed, do: whole.dense[name].bytes - entry.bytes
      assert whole.bytes - report.bytes == Enum.sum(saved)
      assert inspect(packed.params) =~ "Axon.ModelState"
    end

    test "twice is as once, and what no group divides stays dense" do
      info = llama()
      once = Quantization.quantize(info, bits: 8)

      assert Quantization.report(Quantization.quantize(once, bits: 4)) ==
               Quantization.report(once)

      wide = Quantization.quantize(info, bits: 8, group_size: 128)

      assert wide
             |> Quantization.report()
             |> Map.fetch!(:packed)
             |> Map.keys()
             |> Enum.all?(&(&1 =~ "ffn.output"))

      assert_close(logits(wide, Emily.Compiler), logits(info, Emily.Compiler), 0.03)
    end

    test "a packed model on another backend" do
      packed = Quantization.quantize(llama(), bits: 4)
      on_elixir = %{packed | params: Nx.backend_copy(packed.params, Nx.BinaryBackend)}
      wanted = logits(packed, Nx.Defn.Evaluator) |> Nx.backend_copy(Nx.BinaryBackend)

      Nx.with_default_backend(Nx.BinaryBackend, fn ->
        assert_close(logits(on_elixir, Nx.Defn.Evaluator), wanted, 1.0e-5)
      end)
    end

    test "refuses what it does not know" do
      info = llama()
      refuses = &assert_raise(ArgumentError, &1, fn -> Quantization.quantize(info, &2) end)
      refuses.(~r/quantize\/2 has no layer "ffn" to except/, except: ["ffn"])
      refuses.(~r/expects except to be a list/, except: "ffn")
      refuses.(~r/takes the options/, bit: 4)
      refuses.(~r/expects head to be true or false/, head: 1)
      refuses.(~r/expects bits of mode "affine"/, bits: 7)

      assert_raise ArgumentError, ~r/quantize\/2 expects a map with an Axon model/, fn ->
        Quantization.quantize(info.model)
      end

      assert_raise ArgumentError, ~r/report\/1 expects a map/, fn ->
        Quantization.report(info.params)
      end
    end
  end
end
