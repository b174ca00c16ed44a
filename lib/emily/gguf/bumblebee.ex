if Code.ensure_loaded?(Bumblebee) and Code.ensure_loaded?(Axon) do
  defmodule Emily.GGUF.Bumblebee do
    @moduledoc false
    # Bumblebee's model, tokenizer and generation configuration of a file.

    import Emily.GGUF.Metadata

    alias Emily.GGUF
    alias Emily.GGUF.{Llama, Tokenizer}

    @architectures %{"llama" => Llama}

    def load(path, opts) do
      opts = Keyword.validate!(opts, [:type, :device, progress: fn _done, _total -> :ok end])
      gguf = GGUF.read!(path)
      architecture = architecture(gguf)
      spec = architecture.spec(gguf)
      model = Bumblebee.build_model(spec, Keyword.take(opts, [:type]))
      tokenizer = Tokenizer.build(gguf)

      %{
        model_info: %{
          model: model,
          params: params(gguf, spec, model, architecture.parameters(spec), opts),
          spec: spec
        },
        tokenizer: tokenizer,
        generation_config: generation_config(gguf)
      }
    end

    defp architecture(gguf) do
      name = fetch!(gguf, "general.architecture", :string)

      Map.get(@architectures, name) ||
        fail(
          gguf,
          "its architecture is #{inspect(name)}; supported: " <>
            Enum.map_join(@architectures, ", ", fn {name, _} -> inspect(name) end)
        )
    end

    defp generation_config(gguf) do
      ids =
        for {option, keys} <- [
              bos_token_id: ["bos"],
              # A turn of a chat may end with another token than the text.
              eos_token_id: ["eos", "eot"],
              pad_token_id: ["padding"]
            ],
            ids =
              for(key <- keys, id = get(gguf, "tokenizer.ggml.#{key}_token_id", :count), do: id),
            ids != [] do
          {option, with([id] <- Enum.uniq(ids), do: id)}
        end

      Bumblebee.configure(Bumblebee.Text.GenerationConfig, ids)
    end

    # A tensor that two layers share is read once and shared by them.
    defp params(gguf, %module{} = spec, model, parameters, opts) do
      state = Axon.trace_init(model, module.input_template(spec))
      wanted = for {layer, params} <- state.data, {name, _} <- params, do: {layer, name}
      known = for {layer, parameter, _, _} <- parameters, do: {layer, parameter}
      [] = Enum.sort(wanted) -- known

      names = for {_, _, tensor, _} <- parameters, uniq: true, do: tensor
      missing = Enum.reject(names, &is_map_key(gguf.tensors, &1))
      more = Map.keys(gguf.tensors) -- names

      if missing != [], do: fail(gguf, "there is no tensor #{Enum.join(missing, ", ")}")

      if more != [],
        do: fail(gguf, "the model has no place for the tensors #{Enum.join(more, ", ")}")

      total = gguf.tensors |> Enum.map(fn {_, tensor} -> tensor.length end) |> Enum.sum()
      by_name = Enum.group_by(parameters, &elem(&1, 2))

      {data, _} =
        Enum.reduce(names, {%{}, 0}, fn name, {data, done} ->
          [{_, _, _, layout} | _] = uses = by_name[name]
          tensor = gguf |> GGUF.tensor(name, tensor_options(opts)) |> arrange(layout, gguf, name)

          data =
            for {layer, parameter, _, _} <- uses, reduce: data do
              data ->
                check_shape(gguf, name, tensor, state.data[layer][parameter])
                Map.update(data, layer, %{parameter => tensor}, &Map.put(&1, parameter, tensor))
            end

          done = done + gguf.tensors[name].length
          opts[:progress].(done, total)
          {data, done}
        end)

      %{state | data: data}
    end

    defp tensor_options(opts), do: [type: opts[:type] || :f32] ++ Keyword.take(opts, [:device])

    defp arrange(tensor, :same, _gguf, _name), do: tensor
    defp arrange(%{shape: {_, _}} = tensor, :dense, _gguf, _name), do: Nx.transpose(tensor)

    defp arrange(%{shape: {rows, columns}} = tensor, {:rotary, heads}, _gguf, _name)
         when rem(rows, 2 * heads) == 0 do
      tensor =
        tensor
        |> Nx.reshape({heads, div(rows, 2 * heads), 2, columns})
        |> Nx.transpose(axes: [0, 2, 1, 3])
        |> Nx.reshape({rows, columns})

      # Else both orders of the rows would stay in memory.
      Emily.Native.eval(tensor.data.ref)
      Nx.transpose(tensor)
    end

    defp arrange(tensor, _layout, gguf, name),
      do: fail(gguf, "the tensor #{inspect(name)} has the shape #{inspect(tensor.shape)}")

    defp check_shape(_gguf, _name, %{shape: shape}, %{shape: shape}), do: :ok

    defp check_shape(gguf, name, tensor, expected) do
      fail(
        gguf,
        "the tensor #{inspect(name)} gives the shape #{inspect(tensor.shape)}, " <>
          "expected #{inspect(expected.shape)}"
      )
    end
  end
end
