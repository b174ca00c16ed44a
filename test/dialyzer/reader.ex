defmodule Reader do
  # A project that uses Emily as its documentation says, for dialyzer (bin/dialyzer): each function has a result,
  # and the contract says which.

  @type vector :: [float() | :nan | :infinity | :neg_infinity]

  @spec double([number()]) :: vector()
  def double(list) do
    t = Nx.tensor(list, backend: Emily.Backend)
    Nx.multiply(t, 2) |> Nx.to_flat_list()
  end

  @spec serving(Bumblebee.repository()) :: Nx.Serving.t()
  def serving(repository) do
    Nx.global_default_backend(Emily.Backend)
    {:ok, model} = Bumblebee.load_model(repository)
    model = Emily.Bumblebee.FastKernels.apply(model)
    {:ok, tokenizer} = Bumblebee.load_tokenizer(repository)

    Bumblebee.Text.text_embedding(model, tokenizer,
      output_attribute: :hidden_state,
      output_pool: :mean_pooling,
      embedding_processor: :l2_norm,
      defn_options: [compiler: Emily.Compiler]
    )
  end

  @spec spec(Bumblebee.model_info()) :: Bumblebee.ModelSpec.t()
  def spec(model_info), do: Emily.Bumblebee.FastKernels.apply(model_info).spec

  @spec kernels(Axon.t()) :: non_neg_integer()
  def kernels(model) do
    {model, report} = Emily.Bumblebee.FastKernels.apply(model, report: true)
    ^report = Emily.Bumblebee.FastKernels.report(model)
    map_size(report.rewritten)
  end

  @spec kernels_of_map(Axon.t()) :: non_neg_integer()
  def kernels_of_map(model) do
    report = Emily.Bumblebee.FastKernels.report(%{model: model, mine: 1})
    map_size(report.left)
  end

  @spec generation(Path.t()) :: Nx.Serving.t()
  def generation(path) do
    {:ok, %{model_info: model, tokenizer: tokenizer, generation_config: config}} =
      Emily.GGUF.load_bumblebee(path)

    Bumblebee.Text.generation(model, tokenizer, config, defn_options: [compiler: Emily.Compiler])
  end

  @spec weights(Path.t()) :: {Nx.Tensor.t(), term(), vector()}
  def weights(path) do
    gguf = Emily.GGUF.read!(path)
    weights = Emily.GGUF.tensor(gguf, "token_embd.weight", type: :bf16)
    %{value: packed} = Emily.GGUF.packed(gguf, "blk.0.attn_q.weight")
    {Nx.add(weights, 1), gguf.metadata["general.architecture"], Nx.to_flat_list(packed)}
  end

  @spec embedding_model(Path.t()) :: Bumblebee.model_info()
  def embedding_model(folder) do
    {:ok, model} = Emily.Safetensors.load_model(folder, type: :f16)
    Emily.Bumblebee.FastKernels.apply(model)
  end

  @spec checkpoint(Path.t()) :: %{String.t() => Nx.Tensor.t()}
  def checkpoint(path) do
    for {name, lazy} <- Emily.Safetensors.read!(path, device: :cpu), into: %{} do
      {name, Nx.to_tensor(lazy)}
    end
  end

  @spec attend(Nx.Tensor.t(), Nx.Tensor.t(), Nx.Tensor.t()) :: Nx.Tensor.t()
  def attend(q, k, v) do
    q = Emily.Fast.rope(q, 0, dims: 64)
    scale = Nx.broadcast(1.0, {64})
    v = Emily.Fast.layer_norm(Emily.Fast.rms_norm(v, scale), scale, scale)
    out = Emily.Fast.scaled_dot_product_attention(q, k, v, causal: true)
    Emily.Fast.einsum("bhqd,bhqd->bhq", [out, q])
  end

  @spec jitted((Nx.Tensor.t() -> Nx.Tensor.t()), Nx.Tensor.t()) :: Nx.Tensor.t()
  def jitted(fun, x) do
    Emily.Fallback.with_mode(:raise, fn -> Nx.Defn.jit(fun, compiler: Emily.Compiler).(x) end)
  end

  @spec arrays() :: binary()
  def arrays do
    [sum] = Emily.Native.run([{:add, {:full, [2], 1.0, :f32}, {:full, [2], 2.0, :f32}}])
    Emily.Native.to_binary(sum)
  end
end
