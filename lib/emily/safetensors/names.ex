defmodule Emily.Safetensors.Names do
  @moduledoc false
  # What a layer's parameters are called in files: Bumblebee's mapping of a model says it by templates such as
  # `"decoder.blocks.{n}.ffn.gate" => "model.layers.{n}.mlp.gate_proj"`.

  @doc """
  The source of a layer: a name, a list of names of which one is, or, by parameters, where they are made from others;
  `nil` where the mapping has none.
  """
  def source(mapping, layer) do
    Enum.find_value(mapping, fn {template, source} ->
      if values = match(template, layer), do: fill(source, values)
    end)
  end

  defp match(template, layer) do
    keys = for [_, key] <- Regex.scan(~r/\{(\w+)\}/, template), do: key

    pattern =
      ~r/\{\w+\}/ |> Regex.split(template) |> Enum.map_join("([^.]+)", &Regex.escape/1)

    with [_ | values] <- Regex.run(~r/\A#{pattern}\z/, layer), do: Enum.zip(keys, values)
  end

  defp fill(source, values) when is_binary(source),
    do:
      Enum.reduce(values, source, fn {key, value}, name ->
        String.replace(name, "{#{key}}", value)
      end)

  defp fill(sources, values) when is_list(sources), do: Enum.map(sources, &fill(&1, values))

  defp fill(%{} = parameters, values) do
    Map.new(parameters, fn {parameter, {sources, build}} ->
      sources =
        for source <- sources, {layer, name} <- List.wrap(source), do: {fill(layer, values), name}

      {parameter, {sources, build}}
    end)
  end
end
