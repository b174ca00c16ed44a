defmodule Emily.LoRA.Peft do
  @moduledoc false
  # Folders of adapters as PEFT writes them. There A is `{rank, in}` and B `{out, rank}`.

  alias Emily.LoRA.Adapters
  alias Emily.Safetensors.{JSON, Names}

  @compile {:no_warn_undefined,
            [Axon, Bumblebee.HuggingFace.Transformers.Model, Jason, Safetensors]}

  @tensors "adapter_model.safetensors"
  @config "adapter_config.json"
  @prefix "base_model.model."

  # What adapters of other kinds have set, with what ours are.
  @settings [
    {"peft_type", ["LORA"]},
    {"bias", ["none", nil]},
    {"use_dora", [false, nil]},
    {"use_rslora", [false, nil]},
    {"lora_bias", [false, nil]},
    {"rank_pattern", [%{}, nil]},
    {"alpha_pattern", [%{}, nil]},
    {"modules_to_save", [[], nil]},
    {"layer_replication", [nil]},
    {"alora_invocation_tokens", [nil]},
    {"use_qalora", [false, nil]},
    {"use_bdlora", [false, nil]},
    {"trainable_token_indices", [[], %{}, nil]},
    {"target_parameters", [[], nil]}
  ]

  def write(fun, info, folder, base) do
    settings = Adapters.settings!(fun, info)
    [%{rank: rank, alpha: alpha, dropout: dropout}] = settings |> Map.values() |> Enum.uniq()
    names = names(fun, info)

    tensors =
      for {layer, _} <- settings, {part, parameter} <- parts(), into: %{} do
        tensor = info.params.data[layer][parameter]
        name = names[layer] || no_name!(fun, layer)
        {"#{@prefix}#{name}.#{part}.weight", Nx.transpose(tensor)}
      end

    config = %{
      "peft_type" => "LORA",
      "task_type" => task(info.spec),
      "base_model_name_or_path" => base,
      "r" => rank,
      "lora_alpha" => alpha,
      "lora_dropout" => dropout,
      "target_modules" => settings |> Map.keys() |> Enum.map(&names[&1]) |> Enum.sort(),
      "fan_in_fan_out" => fan_in?(info, settings),
      "bias" => "none",
      "inference_mode" => true
    }

    File.mkdir_p!(folder)
    :ok = Safetensors.write!(Path.join(folder, @tensors), tensors)
    File.write!(Path.join(folder, @config), Jason.encode!(config, pretty: true))
  end

  # By which PEFT's AutoPeftModelForCausalLM knows its class. Of other architectures, where it would save heads as well, PEFT
  # is told which model to use.
  defp task(%{architecture: :for_causal_language_modeling}), do: "CAUSAL_LM"
  defp task(_spec), do: nil

  def read(fun, info, folder, opts) do
    path = Path.join(folder, @config)
    config = config!(fun, path)
    layers = for {layer, name} <- names(fun, info), into: %{}, do: {name, layer}

    {rank, alpha, dropout} =
      {config["r"], config["lora_alpha"], config["lora_dropout"] || 0.0}

    settings = Adapters.options!(fun, rank: rank, alpha: alpha, dropout: dropout, key: opts[:key])
    Adapters.none!(fun, info)

    adapters =
      Path.join(folder, @tensors)
      |> Emily.Safetensors.read!()
      |> Enum.reduce(%{}, fn {name, lazy}, adapters ->
        {layer, parameter} = place!(fun, layers, name)
        tensor = lazy |> Nx.to_tensor() |> Nx.transpose()
        Map.update(adapters, layer, %{parameter => tensor}, &Map.put(&1, parameter, tensor))
      end)

    if adapters == %{}, do: fail!(fun, "found no adapters in #{folder}")

    adapters =
      for {{layer, adapters}, index} <- Enum.with_index(Enum.sort(adapters)), into: %{} do
        check!(fun, layer, info.params.data[layer]["kernel"], adapters, rank)
        {layer, Adapters.with_key(adapters, Adapters.key(opts[:key], index), dropout)}
      end

    Adapters.put(info, adapters, settings)
  end

  defp parts, do: [{"lora_A", "lora_a"}, {"lora_B", "lora_b"}]

  defp config!(fun, path) do
    config =
      case JSON.read!(path) do
        {:ok, config} -> config
        :error -> fail!(fun, "expects #{path} to be a JSON object")
      end

    for {name, taken} <- @settings, config[name] not in taken do
      fail!(fun, "does not take adapters with #{name} = #{inspect(config[name])} (#{path})")
    end

    config
  end

  # The dense layers of the model, each with its name in the checkpoints of its architecture.
  defp names(_fun, %{model: %{}, params: %{data: %{}}, spec: spec} = info) do
    mapping = Bumblebee.HuggingFace.Transformers.Model.params_mapping(spec)

    all =
      for {layer, _} <- info.params.data, name = name(Names.source(mapping, layer)), into: %{} do
        {layer, name}
      end

    # The base of an architecture has its names without what models with heads call it.
    roots = for {_, name} <- all, uniq: true, do: name |> String.split(".") |> hd()

    strip =
      case roots do
        [root] when spec.architecture == :base -> root <> "."
        _ -> ""
      end

    for layer <- Adapters.dense(info), name = all[layer], into: %{} do
      {layer, String.replace_prefix(name, strip, "")}
    end
  end

  defp names(fun, other) do
    fail!(
      fun,
      "expects a model as Bumblebee.load_model/2 gives it, with its :spec, got: #{inspect(other, limit: 5)}"
    )
  end

  defp name(name) when is_binary(name), do: name
  defp name([name | _]), do: name
  defp name(_), do: nil

  @spec no_name!(String.t(), String.t()) :: no_return()
  defp no_name!(fun, layer),
    do: fail!(fun, "has adapters on #{layer}, which has no name of its own in checkpoints")

  # Kernels of GPT-2 have inputs first in checkpoints.
  defp fan_in?(%{model: model}, settings) do
    kinds = Axon.properties(model)
    Enum.all?(settings, fn {layer, _} -> kinds[layer] == :conv1d end)
  end

  defp place!(fun, layers, name) do
    with [_, module, part] <- Regex.run(~r/\A#{@prefix}(.+)\.(lora_[AB])\.weight\z/, name),
         layer when layer != nil <- layers[module] do
      {layer, Map.new(parts())[part]}
    else
      _ -> fail!(fun, "has no place for the tensor #{name}: the model has no such dense layer")
    end
  end

  defp check!(fun, layer, kernel, adapters, rank) do
    {inputs, outputs} = Adapters.shape(kernel)

    for {name, shape} <- [{"lora_a", {inputs, rank}}, {"lora_b", {rank, outputs}}] do
      case adapters do
        %{^name => %{shape: ^shape, type: type}}
        when type in [{:f, 32}, {:bf, 16}, {:f, 16}] ->
          :ok

        %{^name => tensor} ->
          fail!(
            fun,
            "expects #{name} of #{layer} as floats of shape #{inspect(shape)}, got #{Emily.Quantization.Packing.describe(tensor)}"
          )

        _ ->
          fail!(fun, "has no #{name} for #{layer}")
      end
    end
  end

  @spec fail!(String.t(), String.t()) :: no_return()
  defp fail!(fun, message), do: Adapters.fail!(fun, message)
end
