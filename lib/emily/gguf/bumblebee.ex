defmodule Emily.GGUF.Bumblebee do
  @moduledoc false
  # Bumblebee's model, tokenizer and generation configuration of a file.

  import Emily.GGUF.Metadata

  alias Emily.{GGUF, Package}
  alias Emily.Native.Options
  alias Emily.GGUF.{Apart, Architectures, Parameters, Spec, Tokenizer}
  alias Emily.Quantization.Model

  @compile {:no_warn_undefined, [Axon, Bumblebee]}

  # What ends a turn of a chat, in files that do not say so.
  @turn_ends ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"]

  # GGML's ways to make one vector of all, under Bumblebee's names of them.
  @poolings %{0 => nil, 1 => :mean_pooling, 2 => :cls_token_pooling, 3 => :last_token_pooling}

  def load(path, opts) do
    fun = "Emily.GGUF.load_bumblebee/2"
    Package.require!(fun, [:bumblebee, :axon, :jason])
    progress = fn _done, _total -> :ok end
    opts = Options.validate!(opts, [:type, :device, dequantize: false, progress: progress], fun)

    unless is_boolean(opts[:dequantize]) do
      raise ArgumentError,
            "Emily.GGUF: :dequantize must be true or false, got: #{inspect(opts[:dequantize])}"
    end

    file = Apart.start(fn -> described(path, opts) end, &tokenized/1)

    try do
      {gguf, row, spec, parameters} = Apart.early(file)
      model = spec |> Bumblebee.build_model(Keyword.take(opts, [:type])) |> states(row)

      info = %{
        model: if(opts[:dequantize], do: model, else: Model.rewrite(model)),
        params: params(gguf, parameters, opts),
        spec: spec
      }

      Map.put(Apart.late(file), :model_info, info)
    after
      Apart.stop(file)
      # What the tokenizer was made of takes a third of what stays.
      Emily.Native.clear_cache()
    end
  end

  # What the model is made by, and the whole file for the tokenizer. All that the file says of the model is checked before
  # a model is made of it. Its metadata, a vocabulary among them, stay in this process.
  defp described(path, opts) do
    gguf = GGUF.read!(path)
    row = Architectures.fetch!(gguf)
    sizes = Spec.sizes(gguf, row)
    spec = Spec.spec(gguf, row, sizes)
    parameters = Parameters.list(gguf, row, sizes)
    Parameters.check(gguf, row, parameters)
    Parameters.notice(gguf, parameters, opts)
    {{%{gguf | metadata: %{}, types: %{}}, row, spec, parameters}, {gguf, row, sizes}}
  end

  defp tokenized({gguf, row, sizes}) do
    use = if row.generates, do: generation(gguf, sizes), else: embedding(gguf, row)
    Map.put(use, :tokenizer, Tokenizer.build(gguf))
  end

  # An embedding model without what it computes of the first token's state: files have no parameters of that.
  defp states(model, %{generates: true}), do: model

  defp states(%{nodes: nodes, output: output} = model, _row) do
    %{op_name: :container, op: op, parent: parents} = nodes[output]

    # The operation puts what it is given in its places, here the names of the nodes.
    parents
    |> then(&apply(op, &1 ++ [[]]))
    |> Map.delete(:pooled_state)
    |> Map.new(fn {name, node} -> {name, %{model | output: node}} end)
    |> Axon.container()
  end

  defp generation(gguf, %{vocabulary: count}) do
    ids = %{
      bos_token_id: List.wrap(token_id(gguf, "bos", count)),
      eos_token_id: List.wrap(token_id(gguf, "eos", count)) ++ turn_ends(gguf, count),
      pad_token_id: List.wrap(token_id(gguf, "padding", count))
    }

    options =
      for {option, [_ | _] = ids} <- ids, do: {option, with([id] <- Enum.uniq(ids), do: id)}

    %{
      generation_config: Bumblebee.configure(Bumblebee.Text.GenerationConfig, options),
      chat_template: GGUF.chat_template(gguf)
    }
  end

  # A turn of a chat may end with another token than the text.
  defp turn_ends(gguf, count) do
    case token_id(gguf, "eot", count) do
      nil ->
        for {token, id} <- Enum.with_index(gguf.metadata["tokenizer.ggml.tokens"]),
            token in @turn_ends,
            do: id

      id ->
        [id]
    end
  end

  defp embedding(gguf, row) do
    key = "#{row.name}.pooling_type"
    type = get(gguf, key, :count, 0)

    case @poolings do
      %{^type => pooling} -> %{pooling: pooling}
      _ -> fail(gguf, "#{key} is #{type}; supported: 0 to 3")
    end
  end

  # What Axon.trace_init/2 would give, which takes a third as long as all else here.
  defp params(gguf, parameters, opts) do
    data = Parameters.read(gguf, parameters, opts)
    names = Map.new(data, fn {layer, params} -> {layer, Map.keys(params)} end)

    struct!(Axon.ModelState, data: data, parameters: names, state: %{}, frozen_parameters: %{})
  end
end
