defmodule Emily.GGUF.Bumblebee do
  @moduledoc false
  # Bumblebee's model, tokenizer and generation configuration of a file.

  import Emily.GGUF.Metadata

  alias Emily.{GGUF, Package}
  alias Emily.Native.Options
  alias Emily.GGUF.{Architectures, Parameters, Spec, Tokenizer}
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

    gguf = GGUF.read!(path)
    row = Architectures.fetch!(gguf)

    # All that the file says is checked before a model is made of it.
    sizes = Spec.sizes(gguf, row)
    spec = Spec.spec(gguf, row, sizes)
    parameters = Parameters.list(gguf, row, sizes)
    Parameters.check(gguf, row, parameters)
    Parameters.notice(gguf, parameters, opts)
    tokenizer = Tokenizer.build(gguf)
    use = if row.generates, do: generation(gguf, sizes), else: embedding(gguf, row)
    model = spec |> Bumblebee.build_model(Keyword.take(opts, [:type])) |> states(row)

    %{
      model_info: %{
        model: if(opts[:dequantize], do: model, else: Model.rewrite(model)),
        params: params(gguf, spec, model, parameters, opts),
        spec: spec
      },
      tokenizer: tokenizer
    }
    |> Map.merge(use)
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

  defp params(gguf, %module{} = spec, model, parameters, opts) do
    state = Axon.trace_init(model, module.input_template(spec))
    wanted = for {layer, params} <- state.data, {name, _} <- params, do: {layer, name}
    [] = wanted -- Enum.map(parameters, &{&1.layer, &1.parameter})
    %{state | data: Parameters.read(gguf, parameters, opts)}
  end
end
