defmodule Emily.Quantization.Model do
  @moduledoc false
  # Models of Axon whose layers take packed weights in the place of dense ones.

  @compile {:no_warn_undefined, [Axon, Axon.Layers]}

  alias Emily.LoRA.Adapters
  alias Emily.Quantization.{Layers, Packing}
  alias Emily.QuantizedWeight

  @fun "Emily.Quantization.quantize/2"

  # By the names of their operations. Bumblebee's conv1d is a dense layer of the same layout, and its transposed one has
  # outputs first.
  @dense [:dense, :conv1d]
  @kinds @dense ++ [:dense_transposed, :embedding]

  @defaults [
    mode: "affine",
    group_size: nil,
    bits: nil,
    except: [],
    head: false,
    embedding: false
  ]

  def quantize(%{model: model, params: %{data: data} = params} = info, opts)
      when is_struct(model, Axon) do
    opts = options!(opts)
    Adapters.none!(@fun, info)
    layers = Axon.properties(model)
    except!(opts[:except], layers)

    kinds =
      @dense ++
        if(opts[:head], do: [:dense_transposed], else: []) ++
        if(opts[:embedding], do: [:embedding], else: [])

    packing = Packing.new!(@fun, opts[:mode], opts[:group_size], opts[:bits])

    # One layer after another: beside the dense weights there is one of them in another order at most.
    data =
      Map.new(data, fn {layer, parameters} ->
        kind = layers[layer]

        if kind in kinds and not excepted?(layer, opts[:except]),
          do: {layer, pack(kind, parameters, packing)},
          else: {layer, parameters}
      end)

    %{info | model: rewrite(model), params: %{params | data: data}}
  end

  def quantize(other, _opts), do: refuse!(@fun, other)

  def report(%{model: model, params: %{data: data}}) when is_struct(model, Axon) do
    layers = Axon.properties(model)

    entries =
      for {layer, kind} <- layers,
          kind in @kinds,
          kernel = get_in(data, [layer, "kernel"]),
          do: {layer, entry(kernel)}

    {packed, dense} = Enum.split_with(entries, fn {_, entry} -> is_map_key(entry, :bits) end)
    %{packed: Map.new(packed), dense: Map.new(dense), bytes: bytes(data)}
  end

  def report(other), do: refuse!("Emily.Quantization.report/1", other)

  @doc "The model, whose layers with kernels take packed ones too."
  def rewrite(model), do: Axon.map_nodes(model, &rewrite_node/1)

  defp rewrite_node(%{op_name: kind, op: op, parameters: parameters} = node)
       when kind in @kinds do
    case length(parameters) do
      1 -> %{node | op: fn x, kernel, opts -> layer(kind, op, x, kernel, [], opts) end}
      2 -> %{node | op: fn x, kernel, bias, opts -> layer(kind, op, x, kernel, [bias], opts) end}
    end
  end

  defp rewrite_node(node), do: node

  defp layer(:embedding, _op, ids, %QuantizedWeight{} = weight, [], _opts),
    do: Layers.quantized_embedding(ids, weight)

  defp layer(_kind, _op, x, %QuantizedWeight{} = weight, bias, opts),
    do: Layers.quantized_dense(x, weight, List.first(bias) || 0, opts)

  defp layer(_kind, op, x, kernel, bias, opts) when is_function(op),
    do: apply(op, [x, kernel] ++ bias ++ [opts])

  defp layer(_kind, op, x, kernel, bias, opts),
    do: apply(Axon.Layers, op, [x, kernel] ++ bias ++ [opts])

  defp pack(kind, %{"kernel" => %Nx.Tensor{shape: {_, _}} = kernel} = parameters, packing) do
    kernel = if kind in @dense, do: Nx.transpose(kernel), else: kernel

    if kernel.type in [{:f, 32}, {:f, 16}, {:bf, 16}] and
         rem(Nx.axis_size(kernel, 1), packing.group_size) == 0 do
      weight = QuantizedWeight.from_dense(kernel, packing |> Map.from_struct() |> Map.to_list())
      %{parameters | "kernel" => weight}
    else
      parameters
    end
  end

  defp pack(_kind, parameters, _packing), do: parameters

  defp entry(%QuantizedWeight{} = weight) do
    packing = Packing.of!("Emily.Quantization.report/1", weight)

    packing
    |> Map.from_struct()
    |> Map.merge(%{shape: Packing.shape(packing, weight.value.shape), bytes: bytes(weight)})
  end

  defp entry(%Nx.Tensor{} = kernel),
    do: %{shape: kernel.shape, type: kernel.type, bytes: Nx.byte_size(kernel)}

  defp bytes(%Nx.Tensor{} = tensor), do: Nx.byte_size(tensor)

  defp bytes(%QuantizedWeight{} = weight),
    do: weight |> Packing.tensors() |> Enum.map(&bytes/1) |> Enum.sum()

  defp bytes(%{} = parameters),
    do: parameters |> Map.values() |> Enum.map(&bytes/1) |> Enum.sum()

  defp options!(opts) do
    unless Keyword.keyword?(opts) and Keyword.keys(opts) -- Keyword.keys(@defaults) == [] do
      Packing.fail!(
        @fun,
        "takes the options #{inspect(Keyword.keys(@defaults))}, got: #{inspect(opts)}"
      )
    end

    opts = Keyword.merge(@defaults, opts)

    for name <- [:head, :embedding], not is_boolean(opts[name]) do
      Packing.fail!(@fun, "expects #{name} to be true or false, got: #{inspect(opts[name])}")
    end

    opts
  end

  # A name that means no layer is a mistake.
  defp except!(except, layers) do
    unless is_list(except) and Enum.all?(except, &(is_binary(&1) or is_struct(&1, Regex))) do
      Packing.fail!(
        @fun,
        "expects except to be a list of layers' names and regular expressions, got: #{inspect(except)}"
      )
    end

    for one <- except, not Enum.any?(layers, fn {layer, _} -> excepted?(layer, [one]) end) do
      Packing.fail!(@fun, "has no layer #{inspect(one)} to except")
    end
  end

  defp excepted?(layer, except) do
    Enum.any?(except, fn
      %Regex{} = pattern -> layer =~ pattern
      name -> layer == name
    end)
  end

  @spec refuse!(String.t(), term()) :: no_return()
  defp refuse!(fun, other) do
    Packing.fail!(
      fun,
      "expects a map with an Axon model under :model and its Axon.ModelState under :params, as " <>
        "Bumblebee.load_model/2 gives it, got: #{inspect(other, limit: 5)}"
    )
  end
end
