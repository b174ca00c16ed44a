if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Bumblebee.OperationsTest do
    # How many operations a layer adds to the program of a generation, which has the model twice: for the prompt, and
    # in the loop for a token. What all layers share adds none.
    use Emily.FastKernelsCase, async: true

    alias Bumblebee.Text.{Generation, Llama}
    alias Emily.Bumblebee.FastKernels

    # Thirty-nine a pass: two norms, four products of the attention with what transposes them, two rotations, two
    # writes into the cache and the attention; three products of the network, its gate, two sums.
    @most 78

    # Other tests compile meanwhile, in processes of their own.
    def tell(_event, measurements, _metadata, test) do
      if self() == test, do: send(test, {:operations, measurements.operations})
    end

    defp operations(blocks) do
      %{model: model, spec: spec, params: params} =
        model(Llama,
          architecture: :for_causal_language_modeling,
          vocab_size: 24,
          hidden_size: 16,
          intermediate_size: 20,
          num_blocks: blocks,
          num_attention_heads: 2,
          num_key_value_heads: 1,
          max_positions: 32
        )

      config = %Bumblebee.Text.GenerationConfig{max_new_tokens: 6, pad_token_id: 0}
      generate = Generation.build_generate(FastKernels.apply(model), spec, config)

      inputs = %{
        "input_ids" => Nx.tensor([[3, 7, 9, 11, 5]]),
        "attention_mask" => Nx.tensor([[1, 1, 1, 1, 1]]),
        "seed" => Nx.tensor([1])
      }

      id = {__MODULE__, blocks}
      :telemetry.attach(id, [:emily, :compile, :stop], &__MODULE__.tell/4, self())
      Nx.Defn.compile(generate, [params, inputs], compiler: Emily.Compiler)
      :telemetry.detach(id)
      assert_received {:operations, operations}
      operations
    end

    test "each layer adds as many, and none for what layers share" do
      [one, two, three] = for blocks <- 1..3, do: operations(blocks)
      assert three - two == two - one
      assert two - one <= @most
    end
  end
end
