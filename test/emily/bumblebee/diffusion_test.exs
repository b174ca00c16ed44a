# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Bumblebee.DiffusionTest do
    use Emily.FastKernelsCase, async: true

    alias Bumblebee.Diffusion.{ControlNet, UNet2DConditional, VaeKl}
    alias Bumblebee.Diffusion.StableDiffusion.SafetyChecker

    # Some of the group norms have 32 groups always.
    @unet [
      sample_size: 4,
      hidden_sizes: [32, 64],
      depth: 1,
      down_block_types: [:cross_attention_down_block, :down_block],
      num_attention_heads: 2,
      cross_attention_size: 12,
      group_norm_num_groups: 8
    ]
    @conditioned [conditioning_embedding_hidden_sizes: [4, 8]]
    @vae [sample_size: 4, hidden_sizes: [32, 64]] ++
           [down_block_types: [:down_block, :down_block], up_block_types: [:up_block, :up_block]]

    defp inputs do
      %{
        "sample" => pixels({1, 4, 4, 4}),
        "timestep" => Nx.tensor(7),
        "encoder_hidden_state" => pixels({1, 3, 12})
      }
    end

    defp unet,
      do:
        model(
          UNet2DConditional,
          @unet ++ [up_block_types: [:up_block, :cross_attention_up_block]]
        )

    # Each of its transformers has attention to itself and to the text, and three norms.
    test "Stable Diffusion's UNet" do
      info = unet()
      assert report(info) == %{rewritten: %{attention: 8, geglu: 4, layer_norm: 12}, left: %{}}
      assert_kernels(info, inputs())
      assert_same(info, inputs())
    end

    test "ControlNet, and the UNet that takes what it says" do
      net = model(ControlNet, @unet ++ @conditioned ++ [use_linear_projection: true])
      assert report(net) == %{rewritten: %{attention: 4, geglu: 2, layer_norm: 6}, left: %{}}

      inputs =
        Map.merge(inputs(), %{
          "conditioning" => pixels({1, 8, 8, 3}),
          "conditioning_scale" => Nx.tensor(0.5)
        })

      assert_kernels(net, inputs)
      states = expected(net, inputs)
      assert_near(actual(net, inputs), states)

      assert_same(
        unet(),
        Map.merge(inputs(), %{
          "additional_down_block_states" => states.down_block_states,
          "additional_mid_block_state" => states.mid_block_state
        })
      )
    end

    for {architecture, inputs, attention} <- [
          {:base, %{"sample" => {1, 4, 4, 3}}, 2},
          {:encoder, %{"sample" => {1, 4, 4, 3}}, 1},
          {:decoder, %{"sample" => {1, 2, 2, 4}}, 1}
        ] do
      test "the #{architecture} of the VAE, whose norms are of groups" do
        info = model(VaeKl, [architecture: unquote(architecture)] ++ @vae)
        assert report(info) == %{rewritten: %{attention: unquote(attention)}, left: %{}}
        inputs = Map.new(unquote(Macro.escape(inputs)), fn {k, shape} -> {k, pixels(shape)} end)
        assert_kernels(info, inputs)
        assert_same(info, inputs)
      end
    end

    test "the VAE that draws what it decodes" do
      info = model(VaeKl, @vae)
      inputs = %{"sample" => pixels({1, 4, 4, 3})}
      drawn = Map.put(inputs, "sample_posterior", Nx.tensor(1))
      right = expected(info, drawn)
      assert_near(actual(info, drawn), right)
      assert Nx.to_number(Nx.all_close(right.sample, actual(info, inputs).sample)) == 0
    end

    test "the safety checker" do
      text = Bumblebee.configure(Bumblebee.Text.ClipText)

      vision =
        Bumblebee.configure(Bumblebee.Vision.ClipVision,
          image_size: 8,
          patch_size: 4,
          hidden_size: 16,
          intermediate_size: 20,
          num_blocks: 2,
          num_attention_heads: 2
        )

      clip =
        Bumblebee.configure(Bumblebee.Multimodal.Clip,
          text_spec: text,
          vision_spec: vision,
          projection_size: 4
        )

      info = model(SafetyChecker, clip_spec: clip)
      assert report(info) == %{rewritten: %{attention: 2, layer_norm: 6}, left: %{}}
      inputs = %{"pixel_values" => pixels({2, 8, 8, 3})}
      assert_kernels(info, inputs)
      assert_same(info, inputs)

      # Yes or no says little: what it is decided by.
      [embeddings] =
        for {id, node} <- info.model.nodes,
            node.name.(node.op, %{}) == "visual_projection",
            do: id

      assert_same(%{info | model: %{info.model | output: embeddings}}, inputs)
    end
  end
end
