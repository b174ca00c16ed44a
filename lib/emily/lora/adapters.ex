defmodule Emily.LoRA.Adapters do
  @moduledoc false
  # Layers with adapters, and without. A node keeps what it was in its `meta`, which `merge/2` restores.

  alias Emily.Quantization.Packing
  alias Emily.QuantizedWeight

  @compile {:no_warn_undefined, [Axon, Axon.Layers, Axon.ModelState]}

  # By the names of their operations. Bumblebee's conv1d is a dense layer of the same layout.
  @dense [:dense, :conv1d]

  # The parameters of a layer that adapters add.
  @names ["lora_a", "lora_b", "lora_key"]

  @doc "The options of `Emily.LoRA.apply/2`, checked."
  def options!(fun, opts) do
    opts =
      Emily.Native.Options.validate!(
        opts,
        [rank: 8, alpha: 16, dropout: 0.0, layers: [~r/(query|value)$/], key: nil],
        fun
      )

    checks = [
      rank: {&(is_integer(&1) and &1 > 0), "a positive integer"},
      alpha: {&(is_number(&1) and &1 > 0), "a positive number"},
      dropout:
        {&(is_number(&1) and &1 >= 0 and &1 < 1), "a number of at least 0 and less than 1"},
      layers:
        {&(is_list(&1) and Enum.all?(&1, fn one -> is_binary(one) or is_struct(one, Regex) end)),
         "a list of layers' names and regular expressions"},
      key: {&(&1 == nil or key?(&1)), "a key of Nx.Random"}
    ]

    for {name, {check, expected}} <- checks, not check.(opts[name]) do
      fail!(fun, "expects #{name} to be #{expected}, got: #{inspect(opts[name])}")
    end

    opts
  end

  defp key?(key), do: match?(%Nx.Tensor{type: {:u, 32}, shape: {2}}, key)

  @doc "The model with adapters on the layers that the options name."
  def add(fun, %{model: model, params: %{data: data}} = info, opts) when is_struct(model, Axon) do
    none!(fun, info)
    layers = layers!(fun, model, data, opts[:layers])

    adapters =
      for {layer, index} <- Enum.with_index(layers), into: %{} do
        {layer, initial(data[layer]["kernel"], key(opts[:key], index), opts)}
      end

    put(info, adapters, opts)
  end

  def add(fun, other, _opts), do: refuse!(fun, other)

  @doc "The model with these adapters, by the names of their layers."
  def put(%{model: model, params: params} = info, adapters, opts) do
    names = names(model)
    keys = keys(model.nodes, names, params.data, opts[:key], map_size(adapters))

    nodes =
      Map.new(model.nodes, fn {id, node} ->
        name = names[id]
        wrapped = wrap(node, params.data[name], adapters[name], opts)
        {id, if(keys[name], do: put_in(wrapped.meta[:lora][:keyed], true), else: wrapped)}
      end)

    data = Map.merge(params.data, adapters, fn _, layer, added -> Map.merge(layer, added) end)
    state = Map.merge(params.state, Map.new(keys, fn {name, _} -> {name, ["key"]} end))
    info = %{info | model: %{model | nodes: nodes}}
    params = %{params | data: Map.merge(data, keys), state: state}
    %{info | params: freeze(params, adapters)}
  end

  # What a checkpoint has none of: the keys of the model's own dropouts, by their names. Axon gives them when it initialises
  # a state, but of none with packed weights.
  defp keys(nodes, names, data, key, from) do
    missing =
      for {id, %{parameters: parameters}} <- nodes,
          Enum.any?(parameters || [], &match?(%{name: "key", kind: :state}, &1)),
          not match?(%{"key" => _}, data[names[id]]),
          do: names[id]

    for {name, index} <- missing |> Enum.sort() |> Enum.with_index(from), into: %{} do
      {name, %{"key" => key(key, index)}}
    end
  end

  @doc "The adapted layers, each with its node's rank, alpha and dropout."
  def adapted(%{model: model}) do
    names = names(model)

    for {id, %{meta: %{lora: %{settings: %{} = settings}}}} <- model.nodes, into: %{} do
      {names[id], settings}
    end
  end

  def merge(fun, %{model: model, params: params} = info) when is_struct(model, Axon) do
    settings = settings!(fun, info)
    names = names(model)
    keyed = for {id, %{meta: %{lora: %{keyed: true}}}} <- model.nodes, do: names[id]
    nodes = Map.new(model.nodes, fn {id, node} -> {id, unwrap(node)} end)

    data =
      Map.new(Map.drop(params.data, keyed), fn {layer, parameters} ->
        case settings[layer] do
          nil -> {layer, parameters}
          one -> {layer, merged(parameters, one)}
        end
      end)

    params = %{
      params
      | data: data,
        parameters: without(Map.drop(params.parameters, keyed), settings),
        state: without(Map.drop(params.state, keyed), settings),
        frozen_parameters: %{}
    }

    %{info | model: %{model | nodes: nodes}, params: params}
  end

  def merge(fun, other), do: refuse!(fun, other)

  @doc "Refuses a model that has adapters."
  def none!(fun, info) do
    if adapted(info) != %{},
      do: fail!(fun, "got a model that has adapters (Emily.LoRA.merge/1 makes one that has none)")
  end

  @doc "As `adapted/1`, for a model that has adapters."
  def settings!(fun, %{model: model} = info) when is_struct(model, Axon) do
    case adapted(info) do
      none when none == %{} -> fail!(fun, "got a model without adapters")
      settings -> settings
    end
  end

  def settings!(fun, other), do: refuse!(fun, other)

  @doc "The shape of a kernel as `{in, out}`."
  def shape(%QuantizedWeight{} = weight) do
    packing = Packing.of!("Emily.LoRA", weight)
    shape = Packing.shape(packing, weight.value.shape)
    if weight.transpose, do: swap(shape), else: shape
  end

  def shape(%Nx.Tensor{shape: shape}), do: shape

  defp swap({rows, columns}), do: {columns, rows}
  defp swap(shape), do: shape

  # Names as Axon computes them, from how many nodes of an operation there were before.
  defp names(model) do
    # It goes from the output to the inputs, which have the first names.
    nodes = Axon.reduce_nodes(model, [], &[&1 | &2])

    {names, _} =
      Enum.reduce(nodes, {%{}, %{}}, fn node, {names, counts} ->
        name = node.name.(node.op_name, counts)
        {Map.put(names, node.id, name), Map.update(counts, node.op_name, 1, &(&1 + 1))}
      end)

    names
  end

  @doc "The names of the dense layers."
  def dense(%{model: model, params: %{data: data}}) do
    for {layer, kind} <- Enum.sort(Axon.properties(model)),
        kind in @dense,
        match?({_, _}, with(%{"kernel" => kernel} <- data[layer], do: shape(kernel))),
        do: layer
  end

  defp layers!(fun, model, data, wanted) do
    dense = dense(%{model: model, params: %{data: data}})

    for one <- wanted, not Enum.any?(dense, &named?(&1, one)) do
      fail!(fun, "has no dense layer #{inspect(one)}; there are: #{Enum.join(dense, ", ")}")
    end

    if wanted == [], do: fail!(fun, "expects layers to name one at least, got: []")
    Enum.filter(dense, fn layer -> Enum.any?(wanted, &named?(layer, &1)) end)
  end

  defp named?(layer, %Regex{} = pattern), do: layer =~ pattern
  defp named?(layer, name), do: layer == name

  defp initial(kernel, key, opts) do
    {inputs, outputs} = shape(kernel)

    [key, random] =
      key |> Nx.Random.split() |> Nx.to_batched(1) |> Enum.map(&Nx.squeeze(&1, axes: [0]))

    b = Nx.broadcast(Nx.tensor(0.0, type: :f32, backend: Emily.Backend), {opts[:rank], outputs})
    adapters = %{"lora_a" => uniform(random, {inputs, opts[:rank]}), "lora_b" => b}
    with_key(adapters, key, opts[:dropout])
  end

  # Kaiming's uniform with the square root of 5 for its slope, as PEFT has it: bounds of the root of 1 / in.
  defp uniform(key, {inputs, _} = shape) do
    bound = 1 / :math.sqrt(inputs)
    {a, _key} = Nx.Random.uniform(key, -bound, bound, shape: shape, type: :f32)
    a
  end

  @doc "The key of a layer, from that of all."
  def key(key, index) do
    (key || Nx.Random.key(0)) |> Nx.backend_copy(Emily.Backend) |> Nx.Random.fold_in(index)
  end

  @doc "The adapters of a layer, with a key where there is a dropout."
  def with_key(adapters, _key, dropout) when dropout == 0, do: adapters
  def with_key(adapters, key, _dropout), do: Map.put(adapters, "lora_key", key)

  # Graph and parameters name what is frozen: Axon.Loop asks the graph. A packed kernel is no tensor, which is what it can
  # freeze; there are no gradients of one.
  defp wrap(%{parameters: parameters} = node, data, adapters, opts) do
    frozen =
      Enum.map(parameters || [], fn
        %{kind: :parameter, name: name} = parameter ->
          %{parameter | frozen: not is_struct(data[name], QuantizedWeight)}

        parameter ->
          parameter
      end)

    if adapters do
      settings = Map.new(Keyword.take(opts, [:rank, :alpha, :dropout]))
      added = Enum.map(Enum.sort(adapters), fn {name, tensor} -> parameter(name, tensor) end)

      %{
        node
        | parameters: frozen ++ added,
          args: node.args ++ Enum.map(added, fn _ -> :parameter end),
          op: op(node.op, length(frozen), settings),
          meta: kept(node, settings)
      }
    else
      %{node | parameters: frozen, meta: kept(node, nil)}
    end
  end

  defp kept(node, settings) do
    kept = if settings, do: [:parameters, :args, :op, :meta], else: [:parameters, :meta]
    Map.put(node.meta || %{}, :lora, %{settings: settings, original: Map.take(node, kept)})
  end

  defp unwrap(%{meta: %{lora: %{original: original}}} = node), do: Map.merge(node, original)
  defp unwrap(node), do: node

  # What Axon initialises where a model's state has no adapters: Axon.Loop does, and takes those that are there.
  defp parameter(name, tensor) do
    struct!(Axon.Parameter,
      name: name,
      template: fn _input -> Nx.template(tensor.shape, tensor.type) end,
      type: tensor.type,
      kind: if(name == "lora_key", do: :state, else: :parameter),
      initializer: initializer(name, tensor)
    )
  end

  defp initializer("lora_a", _tensor), do: fn shape, _type, key -> uniform(key, shape) end

  defp initializer("lora_b", _tensor),
    do: fn shape, type -> Nx.broadcast(Nx.tensor(0, type: type), shape) end

  # Within defn, which takes no tensors of another backend.
  defp initializer("lora_key", key) do
    key = Nx.backend_copy(key, Nx.BinaryBackend)
    fn _shape, _type -> key end
  end

  # Axon passes as many arguments as the node has inputs and parameters.
  defp op(op, 1, %{dropout: dropout} = settings) when dropout == 0,
    do: fn x, w, a, b, opts -> layer(op, x, [w], a, b, nil, opts, settings) end

  defp op(op, 2, %{dropout: dropout} = settings) when dropout == 0,
    do: fn x, w, bias, a, b, opts -> layer(op, x, [w, bias], a, b, nil, opts, settings) end

  defp op(op, 1, settings),
    do: fn x, w, a, b, key, opts -> layer(op, x, [w], a, b, key, opts, settings) end

  defp op(op, 2, settings),
    do: fn x, w, bias, a, b, key, opts -> layer(op, x, [w, bias], a, b, key, opts, settings) end

  defp layer(op, x, weights, a, b, key, opts, settings) do
    y = call(op, [x | weights] ++ [opts])
    input = Nx.as_type(x, a.type)

    # In training a layer with a state answers its new one beside its output; the other modes keep it.
    dropped = key && Axon.Layers.dropout(input, key, rate: settings.dropout, mode: opts[:mode])
    input = output(dropped || input)

    adapted = input |> Nx.dot(a) |> Nx.dot(b) |> Nx.multiply(settings.alpha / settings.rank)
    sum = Nx.add(y, Nx.as_type(adapted, y.type))

    case dropped do
      %{state: %{"key" => key}} -> %{dropped | output: sum, state: %{"lora_key" => key}}
      _ -> sum
    end
  end

  defp output(%Nx.Tensor{} = tensor), do: tensor
  defp output(%{output: tensor}), do: tensor

  defp call(op, args) when is_function(op), do: Kernel.apply(op, args)
  defp call(op, args), do: Kernel.apply(Axon.Layers, op, args)

  # Keys of dropouts stay as they are, which change with each step.
  defp freeze(params, adapters) do
    parameters =
      for {layer, values} <- params.data,
          names = Map.keys(values) -- ["lora_key" | List.wrap(params.state[layer])],
          names != [],
          into: %{},
          do: {layer, names}

    keys =
      for {layer, %{"lora_key" => _}} <- adapters, into: %{}, do: {layer, ["lora_key"]}

    frozen =
      for {layer, names} <- parameters,
          rest = names -- @names,
          rest != [],
          into: %{},
          do: {layer, rest}

    %{
      params
      | parameters: parameters,
        state: Map.merge(params.state, keys, fn _, own, added -> own ++ added end),
        frozen_parameters: frozen
    }
  end

  defp without(metadata, settings) do
    for {layer, names} <- metadata,
        rest = if(settings[layer], do: names -- @names, else: names),
        rest != [],
        into: %{},
        do: {layer, rest}
  end

  defp merged(parameters, %{rank: rank, alpha: alpha}) do
    %{"lora_a" => a, "lora_b" => b, "kernel" => kernel} = parameters
    kernel = unpacked(kernel)

    product =
      Nx.as_type(a, :f32) |> Nx.dot(Nx.as_type(b, :f32)) |> Nx.multiply(alpha / rank)

    sum = kernel |> Nx.as_type(:f32) |> Nx.add(product) |> Nx.as_type(kernel.type)
    parameters |> Map.drop(@names) |> Map.put("kernel", sum)
  end

  defp unpacked(%QuantizedWeight{transpose: true} = weight),
    do: weight |> QuantizedWeight.to_dense() |> Nx.transpose()

  defp unpacked(%QuantizedWeight{} = weight), do: QuantizedWeight.to_dense(weight)
  defp unpacked(%Nx.Tensor{} = kernel), do: kernel

  @spec fail!(String.t(), String.t()) :: no_return()
  def fail!(fun, message), do: raise(ArgumentError, "#{fun} #{message}")

  @spec refuse!(String.t(), term()) :: no_return()
  defp refuse!(fun, other) do
    fail!(
      fun,
      "expects a map with an Axon model under :model and its Axon.ModelState under :params, as " <>
        "Bumblebee.load_model/2 gives it, got: #{inspect(other, limit: 5)}"
    )
  end
end
