# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Bumblebee.FamiliesTest do
    use Emily.FastKernelsCase, async: true

    alias Bumblebee.{Audio, Diffusion, Multimodal, Text, Vision}

    @tiny [vocab_size: 24, hidden_size: 16, intermediate_size: 20]
    @blocks [num_blocks: 2, num_attention_heads: 2]
    @text @tiny ++ @blocks ++ [max_positions: 16]
    @decoder @text ++ [architecture: :for_causal_language_modeling]
    @seq2seq [
      vocab_size: 24,
      hidden_size: 16,
      encoder_num_blocks: 1,
      decoder_num_blocks: 2,
      encoder_num_attention_heads: 2,
      decoder_num_attention_heads: 2,
      encoder_intermediate_size: 20,
      decoder_intermediate_size: 20,
      architecture: :for_conditional_generation
    ]
    @vision [image_size: 8, patch_size: 4, hidden_size: 16, intermediate_size: 20] ++ @blocks

    # name, module, options, what is rewritten
    @encoders [
      {"BERT", Text.Bert, @text, attention: 2, layer_norm: 5},
      {"DistilBERT", Text.Distilbert, @text, attention: 2, layer_norm: 5},
      {"RoBERTa", Text.Roberta, @text ++ [pad_token_id: 0], attention: 2, layer_norm: 5},
      {"ALBERT", Text.Albert, @text ++ [embedding_size: 8], attention: 2, layer_norm: 5},
      {"MPNet", Text.MpNet, @text ++ [pad_token_id: 0], attention: 2, layer_norm: 5},
      {"LayoutLM", Multimodal.LayoutLm, @text, attention: 2, layer_norm: 5},
      {"NomicBERT", Text.NomicBert, @text, attention: 2, layer_norm: 5, rope: 2},
      {"ModernBERT", Text.ModernBert,
       @tiny ++
         [num_blocks: 4, num_attention_heads: 2, max_positions: 16, local_attention_window: 2],
       attention: 4, layer_norm: 9, rope: 4},
      {"CLIP's text", Text.ClipText, @text, attention: 2, layer_norm: 5}
    ]

    @rotary [rms_norm: 5, attention: 2, rope: 2]
    @grouped [cache: 2] ++ @rotary
    @decoders [
      {"Llama", Text.Llama, @decoder, @rotary},
      {"Mistral", Text.Mistral, @decoder ++ [num_key_value_heads: 1, attention_window_size: 2],
       @grouped},
      {"SmolLM3", Text.SmolLm3,
       @decoder ++ [num_key_value_heads: 1, rotary_embedding_enabled: [true, false]],
       [cache: 2, rms_norm: 5, attention: 2, rope: 1]},
      {"Qwen3", Text.Qwen3, @decoder ++ [num_key_value_heads: 1, attention_head_size: 8],
       [cache: 2, rms_norm: 9, attention: 2, rope: 2]},
      {"Gemma", Text.Gemma,
       @decoder ++ [activation: :gelu, num_key_value_heads: 1, attention_head_size: 8], @grouped},
      {"Gemma 3", Text.Gemma3Text,
       @decoder ++ [num_key_value_heads: 1, attention_head_size: 8, attention_window_size: 2],
       [cache: 2, rms_norm: 13, attention: 2, rope: 2]},
      {"Phi", Text.Phi, @decoder, [layer_norm: 3, attention: 2, rope: 2]},
      {"Phi-3", Text.Phi3, @decoder ++ [activation: :silu], @rotary},
      {"GPT-2", Text.Gpt2, @decoder, [layer_norm: 5, attention: 2]},
      {"GPT-NeoX", Text.GptNeoX, Keyword.delete(@decoder, :max_positions),
       [layer_norm: 5, attention: 2, rope: 2]},
      {"GPT-BigCode", Text.GptBigCode, @decoder, [layer_norm: 5, attention: 2]},
      {"ModernBERT's decoder", Text.ModernBertDecoder, @decoder ++ [local_attention_window: 2],
       [layer_norm: 6, attention: 2, rope: 2]},
      {"BERT as a decoder", Text.Bert, @decoder, [layer_norm: 6, attention: 2]},
      {"RoBERTa as a decoder", Text.Roberta, @decoder ++ [pad_token_id: 0],
       [layer_norm: 6, attention: 2]}
    ]

    @seq2seqs [
      {"BART", Text.Bart, @seq2seq ++ [max_positions: 16], [layer_norm: 10, attention: 5]},
      {"mBART", Text.Mbart, @seq2seq ++ [max_positions: 16], [layer_norm: 12, attention: 5]},
      {"M2M100", Text.M2m100, @seq2seq ++ [max_positions: 16], [layer_norm: 10, attention: 5]},
      {"Blenderbot", Text.Blenderbot, @seq2seq ++ [max_positions: 16],
       [layer_norm: 10, attention: 5]},
      {"T5", Text.T5,
       Keyword.drop(@seq2seq, [:encoder_intermediate_size, :decoder_intermediate_size]) ++
         [intermediate_size: 20, attention_head_size: 8], [rms_norm: 10, attention: 5]}
    ]

    @visions [
      {"ViT", Vision.Vit, @vision, [layer_norm: 5, attention: 2]},
      {"DeiT", Vision.Deit, @vision, [layer_norm: 5, attention: 2]},
      {"DINOv2", Vision.DinoV2, Keyword.delete(@vision, :intermediate_size),
       [layer_norm: 5, attention: 2]},
      {"CLIP's vision", Vision.ClipVision, @vision, [layer_norm: 6, attention: 2]},
      {"BLIP's vision", Vision.BlipVision, @vision, [layer_norm: 6, attention: 2]}
    ]

    # Those with a test of their own, here or in DiffusionTest; BlipText is a part of BLIP.
    @alone [Audio.Whisper, Multimodal.Blip, Multimodal.Clip, Text.BlipText, Vision.ConvNext] ++
             [Vision.ResNet, Vision.Swin, Diffusion.ControlNet, Diffusion.UNet2DConditional] ++
             [Diffusion.VaeKl, Diffusion.StableDiffusion.SafetyChecker]

    test "every model of Bumblebee is here" do
      {:ok, modules} = :application.get_key(:bumblebee, :modules)

      models =
        for module <- modules,
            {:module, _} = Code.ensure_loaded(module),
            Bumblebee.ModelSpec in List.wrap(module.module_info(:attributes)[:behaviour]),
            do: module

      rows = @encoders ++ @decoders ++ @seq2seqs ++ @visions
      here = for({_, module, _, _} <- rows, do: module) ++ @alone
      assert models -- here == []
      assert Enum.uniq(here) -- models == []
    end

    @ids Nx.tensor([[3, 7, 9, 11, 5], [8, 4, 6, 5, 2]])
    @sides Nx.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])

    defp text(_module), do: %{"input_ids" => @ids, "attention_mask" => @sides}

    for {name, module, options, counts} <- @encoders do
      test name do
        info = model(unquote(module), unquote(Macro.escape(options)))
        assert report(info) == %{rewritten: Map.new(unquote(counts)), left: %{}}
        inputs = text(unquote(module))
        assert_kernels(info, inputs)
        assert_same(info, inputs)
        assert_same(info, Map.delete(inputs, "attention_mask"))
      end
    end

    for {name, module, options, counts} <- @decoders do
      test "#{name}, and decoding with a cache" do
        info = model(unquote(module), unquote(Macro.escape(options)))
        assert report(info) == %{rewritten: Map.new(unquote(counts)), left: %{}}
        inputs = text(unquote(module))
        assert_kernels(info, inputs)
        assert_same(info, inputs)
        assert_same(info, Map.delete(inputs, "attention_mask"))
        assert_decodes(info, inputs)
      end
    end

    for {name, module, options, counts} <- @seq2seqs do
      test "#{name}, and decoding with a cache" do
        info = model(unquote(module), unquote(Macro.escape(options)))
        assert report(info) == %{rewritten: Map.new(unquote(counts)), left: %{}}

        inputs = %{
          "input_ids" => @ids,
          "attention_mask" => @sides,
          "decoder_input_ids" => Nx.tensor([[2, 7, 3], [2, 4, 6]]),
          "decoder_attention_mask" => Nx.tensor([[0, 1, 1], [1, 1, 1]])
        }

        assert_kernels(info, inputs)
        assert_same(info, inputs)
        assert_decodes(info, inputs, "decoder_")
      end
    end

    for {name, module, options, counts} <- @visions do
      test name do
        info = model(unquote(module), unquote(Macro.escape(options)))
        assert report(info) == %{rewritten: Map.new(unquote(counts)), left: %{}}
        inputs = %{"pixel_values" => pixels({2, 8, 8, 3})}
        assert_kernels(info, inputs)
        assert_same(info, inputs)
      end
    end

    test "Swin, whose windows have masks and biases" do
      info =
        model(Vision.Swin,
          image_size: 16,
          patch_size: 2,
          embedding_size: 8,
          window_size: 4,
          num_blocks: [2, 1],
          num_attention_heads: [2, 2]
        )

      assert %{rewritten: %{attention: 3}, left: left} = report(info)
      assert left == %{}
      inputs = %{"pixel_values" => pixels({1, 16, 16, 3})}
      assert_kernels(info, inputs)
      assert_same(info, inputs)
    end

    test "ConvNeXT, some of whose norms name their axis by its number" do
      info = model(Vision.ConvNext, hidden_sizes: [8, 12], depths: [1, 1], patch_size: 2)
      assert %{rewritten: %{layer_norm: norms}, left: left} = report(info)
      assert left == %{{:layer_norm, "channel_index is 3, not -1"} => 2}
      inputs = %{"pixel_values" => pixels({1, 8, 8, 3})}
      assert kernels(info, inputs) == %{layer_norm: norms}
      assert_same(info, inputs)
    end

    test "ResNet, which has nothing to fuse and stays as it is" do
      info =
        model(Vision.ResNet,
          num_channels: 1,
          embedding_size: 2,
          hidden_sizes: [4, 4],
          depths: [1, 1],
          downsample_in_first_stage: true
        )

      assert report(info) == %{rewritten: %{}, left: %{}}
      assert Emily.Bumblebee.FastKernels.apply(info) == info
      assert_same(info, %{"pixel_values" => pixels({1, 224, 224, 1})})
    end

    test "Whisper, and decoding with a cache" do
      info =
        model(Audio.Whisper, Keyword.merge(@seq2seq, encoder_max_positions: 4, feature_size: 4))

      assert report(info) == %{rewritten: %{layer_norm: 10, attention: 5}, left: %{}}

      inputs = %{
        "input_features" => pixels({2, 8, 4}),
        "decoder_input_ids" => Nx.tensor([[2, 7, 3], [2, 4, 6]])
      }

      assert_kernels(info, inputs)
      assert_same(info, inputs)
      assert_decodes(info, inputs, "decoder_")
    end

    test "CLIP" do
      text = Bumblebee.configure(Text.ClipText, @text)
      vision = Bumblebee.configure(Vision.ClipVision, @vision)

      info =
        model(Multimodal.Clip, text_spec: text, vision_spec: vision, projection_size: 8)

      assert report(info) == %{rewritten: %{layer_norm: 11, attention: 4}, left: %{}}

      inputs = Map.put(text(nil), "pixel_values", pixels({1, 8, 8, 3}))
      assert_kernels(info, inputs)
      assert_same(info, inputs)
    end

    test "BLIP" do
      text = Bumblebee.configure(Text.BlipText, @decoder ++ [encoder_hidden_size: 16])
      vision = Bumblebee.configure(Vision.BlipVision, @vision)

      info =
        model(Multimodal.Blip,
          text_spec: text,
          vision_spec: vision,
          architecture: :for_conditional_generation
        )

      assert %{rewritten: %{attention: 6}, left: left} = report(info)
      assert left == %{}

      inputs = %{
        "decoder_input_ids" => @ids,
        "decoder_attention_mask" => @sides,
        "pixel_values" => pixels({2, 8, 8, 3})
      }

      # The norm of the image as a whole is part of no output.
      assert_kernels(info, inputs, layer_norm: 13)
      assert_same(info, inputs)
    end

    # The prompt into an empty cache, then two tokens one by one, as Bumblebee.Text.generation does.
    defp assert_decodes(%{spec: spec} = info, inputs, prefix \\ "") do
      ids = inputs[prefix <> "input_ids"]
      {batch, length} = ids.shape
      mask = inputs[prefix <> "attention_mask"] || Nx.broadcast(1, ids)
      cache = Bumblebee.Text.Generation.init_cache(spec, batch, length + 3, inputs)

      inputs =
        inputs
        |> Map.put(prefix <> "attention_mask", mask)
        |> Map.put(
          prefix <> "position_ids",
          mask |> Nx.cumulative_sum(axis: 1) |> Nx.subtract(mask)
        )
        |> Map.put("cache", cache)

      Enum.reduce(1..3, inputs, fn step, inputs ->
        right = expected(info, inputs)
        assert_near(actual(info, inputs), right)

        inputs
        |> Map.put(prefix <> "input_ids", Nx.tensor([[step], [step + 3]]))
        |> Map.put(prefix <> "attention_mask", Nx.broadcast(1, {batch, 1}))
        |> Map.update!(prefix <> "position_ids", fn ids ->
          ids |> Nx.slice_along_axis(Nx.axis_size(ids, 1) - 1, 1, axis: 1) |> Nx.add(1)
        end)
        |> Map.put("cache", right.cache)
      end)
    end
  end
end
