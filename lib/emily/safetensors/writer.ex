defmodule Emily.Safetensors.Writer do
  @moduledoc false
  # Models of Bumblebee's as folders that mlx-lm reads.

  alias Emily.LoRA.Adapters
  alias Emily.Quantization.Packing
  alias Emily.QuantizedWeight
  alias Emily.Safetensors.{JSON, Names}

  @compile {:no_warn_undefined,
            [Axon, Bumblebee.HuggingFace.Transformers.Model, Jason, Safetensors]}

  @fun "Emily.Safetensors.save_model/3"

  # What goes along with a model: tokenizers, templates, generation.
  @along ~w(*.json *.jinja *.txt *.model)
  @not_along ~w(config.json model.safetensors.index.json)

  def write(%{model: model, params: %{data: data}, spec: spec} = info, folder, from) do
    Adapters.none!(@fun, info)
    mapping = Bumblebee.HuggingFace.Transformers.Model.params_mapping(spec)
    kinds = Axon.properties(model)

    layers =
      for {layer, parameters} <- data, {parameter, value} <- parameters, reduce: %{} do
        layers ->
          name = name!(mapping, layer, parameter)
          stored = stored(kinds[layer], layer, parameter, value)

          Map.update(layers, name, {value, stored}, fn
            {^value, _} = same ->
              same

            _ ->
              Packing.fail!(
                @fun,
                "has two layers with numbers of their own for #{name}, of which files have one"
              )
          end)
      end

    config = config(from, layers)
    File.mkdir_p!(folder)

    tensors =
      for {name, {_, stored}} <- layers,
          {part, tensor} <- parts(name, stored),
          into: %{},
          do: {part, tensor}

    :ok = Safetensors.write!(Path.join(folder, "model.safetensors"), tensors)
    File.write!(Path.join(folder, "config.json"), Jason.encode!(config, pretty: true))

    for pattern <- @along,
        path <- Path.wildcard(Path.join(from, pattern)),
        name = Path.basename(path),
        name not in @not_along,
        target = Path.join(folder, name),
        Path.expand(target) != Path.expand(path),
        # Opening a pipe would wait for its other end.
        File.regular?(path),
        do: File.cp!(path, target)

    :ok
  end

  # The name of a parameter in files.
  defp name!(mapping, layer, parameter) do
    part =
      case parameter do
        name when name in ["kernel", "gamma"] -> "weight"
        "beta" -> "bias"
        name -> name
      end

    case Names.source(mapping, layer) do
      name when is_binary(name) ->
        "#{name}.#{part}"

      [name | _] ->
        "#{name}.#{part}"

      nil ->
        Packing.fail!(@fun, "has the layer #{layer}, of which Bumblebee's mapping has no name")

      %{} ->
        Packing.fail!(
          @fun,
          "has the layer #{layer}, a part of another tensor in files, which this does not write"
        )
    end
  end

  # As files have it: rows are outputs.
  defp stored(kind, layer, "kernel", %QuantizedWeight{transpose: true} = weight)
       when kind in [:dense, :dense_transposed, :embedding] do
    Packing.of!("#{@fun} (#{layer})", weight)
    weight
  end

  defp stored(:dense, _layer, "kernel", %Nx.Tensor{} = kernel), do: Nx.transpose(kernel)

  defp stored(kind, _layer, "kernel", %Nx.Tensor{} = kernel)
       when kind in [:dense_transposed, :embedding],
       do: kernel

  defp stored(_kind, _layer, parameter, %Nx.Tensor{} = tensor) when parameter != "kernel",
    do: tensor

  defp stored(kind, layer, parameter, _value) do
    Packing.fail!(
      @fun,
      "does not write the parameter #{parameter} of #{layer}, a layer of the kind #{kind}"
    )
  end

  defp parts(name, %QuantizedWeight{} = weight) do
    layer = String.replace_suffix(name, ".weight", "")
    biases = if weight.mode == "affine", do: [{layer <> ".biases", weight.biases}], else: []
    [{name, weight.value}, {layer <> ".scales", weight.scales} | biases]
  end

  defp parts(name, tensor), do: [{name, tensor}]

  # The packing of most is that of all; the others are named.
  defp config(from, layers) do
    path = Path.join(from, "config.json")

    config =
      case JSON.read!(path) do
        {:ok, config} -> Map.drop(config, ["quantization", "quantization_config"])
        :error -> raise ArgumentError, "#{@fun} expects #{path} to be a JSON object"
      end

    packings =
      for {name, {%QuantizedWeight{} = weight, _}} <- layers do
        {String.replace_suffix(name, ".weight", ""),
         %{"group_size" => weight.group_size, "bits" => weight.bits, "mode" => weight.mode}}
      end

    case Enum.frequencies_by(packings, &elem(&1, 1)) do
      none when none == %{} ->
        config

      frequencies ->
        {common, _} = Enum.max_by(frequencies, &elem(&1, 1))
        others = for {_, packing} = other <- packings, packing != common, do: other
        Map.put(config, "quantization", Map.merge(common, Map.new(others)))
    end
  end
end
