defmodule Emily.Safetensors.Packed do
  @moduledoc false
  # Weights that are packed in files as MLX has them: words under `weight`, with `scales` and, in the affine mode,
  # `biases`. `quantization` in config.json says how, for all layers and, under their names, for some.

  alias Emily.Quantization.Packing
  alias Emily.QuantizedWeight
  alias Emily.Safetensors.{JSON, Names}

  @compile {:no_warn_undefined, Axon}

  @fun "Emily.Safetensors.load_model/2"

  @doc """
  The packed weights of a model's tensors by the names of their layers, and the tensors with dense ones in their place:
  zeros of no memory, for Bumblebee to put where they belong.
  """
  def split(tensors, folder, device) do
    quantization = quantization(folder)

    packed =
      for {name, scales} <- tensors, layer = layer(name, ".scales"), into: %{} do
        if quantization == nil,
          do: fail(folder, "#{inspect(name)} is there, but config.json has no quantization")

        {layer,
         weight(tensors, folder, layer, scales, packing(quantization, folder, layer), device)}
      end

    for {name, %{type: {:u, 32}}} <- tensors,
        layer = layer(name, ".weight"),
        not is_map_key(packed, layer),
        do:
          fail(
            folder,
            "#{inspect(name)} is packed, but there is no #{inspect(layer <> ".scales")}"
          )

    dense =
      for {layer, weight} <- packed, into: %{} do
        shape = Packing.shape(Packing.of!(@fun, weight), weight.value.shape)
        zero = Nx.tensor(0.0, backend: {Emily.Backend, device})
        {layer <> ".weight", Nx.broadcast(zero, shape)}
      end

    parts = for layer <- Map.keys(packed), part <- [".scales", ".biases"], do: layer <> part
    {packed, tensors |> Map.drop(parts) |> Map.merge(dense)}
  end

  @doc "A model's parameters with the packed weights in their places. Each has one."
  def place(params, packed, _model, _mapping) when packed == %{}, do: params

  def place(%{data: data} = params, packed, model, mapping) do
    kinds = Axon.properties(model)

    {data, used} =
      Enum.map_reduce(data, [], fn {layer, parameters}, used ->
        source = Names.source(mapping, layer)

        case is_map_key(parameters, "kernel") and kernel(source, packed) do
          {name, weight} ->
            fits!(name, weight, layer, kinds[layer], parameters["kernel"].shape)
            {{layer, %{parameters | "kernel" => weight}}, [name | used]}

          _ ->
            {{layer, parameters}, used}
        end
      end)

    case Map.keys(packed) -- used do
      [] -> %{params | data: Map.new(data)}
      unused -> fail(Enum.join(Enum.take(unused, 5), ", "), "has no place in the model")
    end
  end

  defp fits!(name, weight, layer, kind, kernel) do
    unless kind in [:dense, :dense_transposed, :embedding],
      do: fail(name, "is packed, but #{layer} is a layer of the kind #{kind}")

    expected = if kind == :dense, do: {elem(kernel, 1), elem(kernel, 0)}, else: kernel
    shape = Packing.shape(Packing.of!(@fun, weight), weight.value.shape)

    if shape != expected,
      do: fail(name, "has the shape #{inspect(shape)}, where #{layer} takes #{inspect(expected)}")
  end

  defp kernel(%{"kernel" => {[{name, "weight"}], build}}, packed) do
    with %{^name => weight} <- packed, do: {name, rows(weight, build)}
  end

  defp kernel(source, packed) do
    Enum.find_value(List.wrap(source), fn
      name when is_binary(name) and is_map_key(packed, name) -> {name, packed[name]}
      _ -> nil
    end)
  end

  # Which rows a layer takes of a tensor that it shares is seen from what Bumblebee makes of their numbers.
  defp rows(%{value: %{shape: {rows, _}}} = weight, build) do
    numbers = Nx.iota({rows, 1}, type: :s32, backend: Nx.BinaryBackend)
    taken = [numbers] |> build.() |> Nx.flatten() |> Nx.backend_transfer(backend(weight))
    take = &Nx.take(&1, taken, axis: 0)

    case weight do
      %{mode: "affine"} ->
        %{
          weight
          | value: take.(weight.value),
            scales: take.(weight.scales),
            biases: take.(weight.biases)
        }

      _ ->
        %{weight | value: take.(weight.value), scales: take.(weight.scales)}
    end
  end

  defp backend(weight), do: {Emily.Backend, device: weight.value.data.device}

  defp weight(tensors, folder, layer, scales, packing, device) do
    value =
      tensors[layer <> ".weight"] || fail(folder, "there is no #{inspect(layer <> ".weight")}")

    affine? = packing.mode == "affine"
    biases = affine? && tensors[layer <> ".biases"]

    if affine? and biases == nil,
      do: fail(folder, "there is no #{inspect(layer <> ".biases")}")

    [value, scales, biases] =
      Enum.map(
        [value, scales, biases || Nx.tensor(0, type: :u8, backend: {Emily.Backend, device})],
        &Nx.to_tensor/1
      )

    fields = Map.merge(Map.from_struct(packing), %{value: value, scales: scales, biases: biases})
    weight = struct!(QuantizedWeight, fields)

    try do
      Packing.of!("its weight", weight)
    rescue
      error in ArgumentError -> fail(folder, "#{layer}: #{Exception.message(error)}")
    end

    weight
  end

  defp layer(name, part),
    do: if(String.ends_with?(name, part), do: String.replace_suffix(name, part, ""))

  defp quantization(folder) do
    path = Path.join(folder, "config.json")

    with true <- File.regular?(path),
         {:ok, %{"quantization" => quantization}} <- JSON.read!(path) do
      if is_map(quantization),
        do: quantization,
        else: fail(path, "quantization is #{inspect(quantization, limit: 5)}, no object")
    else
      _ -> nil
    end
  end

  # A layer's own values, or those of all.
  defp packing(quantization, folder, layer) do
    own = if is_map(quantization[layer]), do: quantization[layer], else: quantization
    mode = Map.get(own, "mode", Map.get(quantization, "mode", "affine"))

    try do
      Packing.new!("its quantization", mode, own["group_size"], own["bits"])
    rescue
      error in ArgumentError ->
        fail(Path.join(folder, "config.json"), "#{layer}: #{Exception.message(error)}")
    end
  end

  @spec fail(String.t(), String.t()) :: no_return()
  defp fail(where, problem), do: raise(ArgumentError, "Emily.Safetensors: #{where}: #{problem}")
end
