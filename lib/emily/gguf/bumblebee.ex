defmodule Emily.GGUF.Bumblebee do
  @moduledoc false
  # Bumblebee's model, tokenizer and generation configuration of a file.

  import Emily.GGUF.Metadata

  require Logger

  alias Emily.{GGUF, Package, QuantizedWeight}
  alias Emily.GGUF.{Blocks, Llama, Tokenizer}
  alias Emily.Quantization.Model

  @architectures %{"llama" => Llama}

  @compile {:no_warn_undefined, [Axon, Bumblebee]}

  def load(path, opts) do
    Package.require!("Emily.GGUF.load_bumblebee/2", [:bumblebee, :axon])
    progress = fn _done, _total -> :ok end
    opts = Keyword.validate!(opts, [:type, :device, dequantize: false, progress: progress])

    unless is_boolean(opts[:dequantize]) do
      raise ArgumentError,
            "Emily.GGUF: :dequantize must be true or false, got: #{inspect(opts[:dequantize])}"
    end

    gguf = GGUF.read!(path)
    architecture = architecture(gguf)

    # All that the file says is checked before a model is made of it.
    spec = architecture.spec(gguf)
    parameters = architecture.parameters(spec)
    check(gguf, architecture, parameters)
    notice(gguf, parameters, opts)
    tokenizer = Tokenizer.build(gguf)
    generation_config = generation_config(gguf, spec)
    model = Bumblebee.build_model(spec, Keyword.take(opts, [:type]))

    %{
      model_info: %{
        model: if(opts[:dequantize], do: model, else: Model.rewrite(model)),
        params: params(gguf, spec, model, parameters, opts),
        spec: spec
      },
      tokenizer: tokenizer,
      generation_config: generation_config
    }
  end

  defp architecture(gguf) do
    name = fetch!(gguf, "general.architecture", :string)

    Map.get(@architectures, name) ||
      fail(
        gguf,
        "general.architecture: its architecture is #{inspect(name)}; supported: " <>
          Enum.map_join(@architectures, ", ", fn {name, _} -> inspect(name) end)
      )
  end

  # Every tensor that the model needs is there, of its shape and of a type that can be read, and no other.
  defp check(gguf, architecture, parameters) do
    shapes = Map.new(parameters, fn {_, _, name, shape, _} -> {name, shape} end)
    missing = Map.keys(shapes) -- Map.keys(gguf.tensors)
    if missing != [], do: fail(gguf, "there is no tensor #{few(missing)}")
    more = Map.keys(gguf.tensors) -- Map.keys(shapes)
    if more != [], do: fail(gguf, "the model has no place for the tensors #{few(more)}")

    for {name, expected} <- shapes, %{type: type, shape: shape} = gguf.tensors[name] do
      if shape != expected do
        fail(
          gguf,
          "the tensor #{inspect(name)} has the shape #{inspect(shape)}, expected #{inspect(expected)} by " <>
            Enum.join(architecture.fields(name), ", ")
        )
      end

      if type not in Blocks.floats() do
        fail(
          gguf,
          "the tensor #{inspect(name)} is of type #{type}; a model takes #{Enum.join(Blocks.floats(), ", ")}"
        )
      end
    end
  end

  defp few(names) do
    shown = names |> Enum.take(5) |> Enum.join(", ")
    if length(names) > 5, do: "#{shown} and #{length(names) - 5} more", else: shown
  end

  defp generation_config(gguf, spec) do
    ids =
      for {option, names} <- [
            bos_token_id: ["bos"],
            # A turn of a chat may end with another token than the text.
            eos_token_id: ["eos", "eot"],
            pad_token_id: ["padding"]
          ],
          ids = for(name <- names, id = token_id(gguf, name, spec.vocab_size), do: id),
          ids != [] do
        {option, with([id] <- Enum.uniq(ids), do: id)}
      end

    Bumblebee.configure(Bumblebee.Text.GenerationConfig, ids)
  end

  # A tensor that two layers share is read once and shared by them.
  defp params(gguf, %module{} = spec, model, parameters, opts) do
    state = Axon.trace_init(model, module.input_template(spec))
    wanted = for {layer, params} <- state.data, {name, _} <- params, do: {layer, name}
    known = for {layer, parameter, _, _, _} <- parameters, do: {layer, parameter}
    [] = Enum.sort(wanted) -- known

    total = gguf.tensors |> Enum.map(fn {_, tensor} -> tensor.length end) |> Enum.sum()

    {data, _} =
      parameters
      |> Enum.group_by(&elem(&1, 2))
      |> Enum.reduce({%{}, 0}, fn {name, [{_, _, _, _, layout} | _] = uses}, {data, done} ->
        tensor = gguf |> parameter(name, opts) |> arrange(layout)

        data =
          for {layer, parameter, _, _, _} <- uses, reduce: data do
            data ->
              Map.update(data, layer, %{parameter => tensor}, &Map.put(&1, parameter, tensor))
          end

        done = done + gguf.tensors[name].length
        opts[:progress].(done, total)
        {data, done}
      end)

    %{state | data: data}
  end

  # What is quantized in the file stays so, as products and embeddings take it.
  defp parameter(gguf, name, opts) do
    %{type: type, shape: shape} = gguf.tensors[name]

    packed =
      if not opts[:dequantize] and type in Blocks.quantized() and tuple_size(shape) == 2,
        do: packed(type, opts[:device])

    if packed,
      do: GGUF.packed(gguf, name, packed ++ Keyword.take(opts, [:device])),
      else: GGUF.tensor(gguf, name, tensor_options(opts))
  end

  # How a device multiplies with a type.
  defp packed(type, device) do
    cond do
      (device || Emily.Native.default_device()) == :cpu -> []
      # The scales' own type in the file.
      type in Blocks.affine() -> [mode: "affine", type: :f16]
      true -> nil
    end
  end

  defp notice(gguf, parameters, opts) do
    types =
      for {_, _, name, {_, _}, _} <- parameters,
          type = gguf.tensors[name].type,
          type in Blocks.quantized() and packed(type, opts[:device]) == nil,
          uniq: true,
          do: type

    if types != [] and not opts[:dequantize] do
      Logger.notice(
        "Emily.GGUF: #{gguf.path}: a GPU has no product with #{Enum.join(types, ", ")}: these " <>
          "tensors become dense"
      )
    end
  end

  defp tensor_options(opts), do: [type: opts[:type] || :f32] ++ Keyword.take(opts, [:device])

  defp arrange(tensor, :same), do: tensor

  defp arrange(%QuantizedWeight{} = weight, :dense), do: weight
  defp arrange(tensor, :dense), do: Nx.transpose(tensor)

  defp arrange(%QuantizedWeight{} = weight, {:rotary, heads}) do
    turned =
      for name <- [:value, :scales, :biases],
          %{shape: {_, _}} = tensor <- [Map.fetch!(weight, name)],
          do: {name, turn(tensor, heads)}

    struct!(weight, turned)
  end

  defp arrange(tensor, {:rotary, heads}), do: tensor |> turn(heads) |> Nx.transpose()

  # Rows that turn together, which are neighbours, become the first of all pairs before the second.
  defp turn(%{shape: {rows, columns}} = tensor, heads) do
    tensor =
      tensor
      |> Nx.reshape({heads, div(rows, 2 * heads), 2, columns})
      |> Nx.transpose(axes: [0, 2, 1, 3])
      |> Nx.reshape({rows, columns})

    # Else both orders of the rows would stay in memory.
    Emily.Native.eval(tensor.data.ref)
    tensor
  end
end
