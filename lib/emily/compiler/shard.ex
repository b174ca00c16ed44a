defmodule Emily.Compiler.Shard do
  @moduledoc false
  # One function over a mesh of partitions, each on a device: `Emily.Compiler.__shard_jit__/6`.
  #
  # `Emily.Compiler.Shard.Plan` makes segments of it, which are programs of `Emily.Compiler`'s. The partitions run a segment at
  # once, each in a process of its own on a stream of its own; then they exchange what the next one needs.

  alias Emily.{Backend, Device}
  alias Emily.Compiler.{Cache, CodeVersion, Executable, Options, Streams}
  alias Emily.Compiler.Shard.{Exchange, Mesh, Plan}
  alias Nx.Defn.Composite
  alias Nx.Tensor, as: T

  @enforce_keys [:levels, :later, :outputs, :template, :count]
  defstruct [:levels, :later, :outputs, :template, :count]

  @own [:input_shardings, :devices]

  @doc "The results of each partition."
  def run(key, %Nx.Mesh{} = mesh, vars, fun, args_list, opts) do
    {own, opts} = Keyword.split(opts, @own)
    options = Options.validate!(opts)
    check_mesh!(mesh)
    partitions = Mesh.size(mesh.shape)
    refuse_donation!(options)
    check_count!(args_list, partitions, mesh)
    splits = splits!(own[:input_shardings], vars, mesh)
    devices = devices!(own[:devices], options, partitions, mesh)
    leaves = Composite.flatten_list(vars)
    refuse_vectorized!(leaves)

    shard =
      Cache.fetch(cache_key(key, vars, mesh, splits, devices, options), options, fn ->
        compile(key, mesh, vars, splits, fun, Enum.uniq(devices), options)
      end)

    inputs =
      for {args, number} <- Enum.with_index(args_list) do
        for {{arg, leaf}, at} <- args |> Enum.zip(leaves) |> Enum.with_index(),
            do: given!(arg.(), leaf, at, number)
      end

    execute(shard, inputs, devices, mesh.shape, options)
  end

  @doc "The memory of the constants of all programs."
  def bytes(%{levels: levels}) do
    Enum.sum(
      for {_slots, executables, _exchanges} <- levels,
          {_device, executable} <- executables,
          do: Executable.bytes(executable)
    )
  end

  @doc "What may be kept: nothing where a segment has no program, since it would be its expression."
  def kept(%{levels: levels} = shard) do
    programs? =
      Enum.all?(levels, fn {_slots, executables, _exchanges} ->
        Enum.all?(executables, fn {_device, executable} -> executable.program end)
      end)

    if programs?, do: without_expressions(shard)
  end

  defp without_expressions(shard) do
    levels =
      for {slots, executables, exchanges} <- shard.levels do
        {slots, Map.new(executables, fn {device, one} -> {device, Executable.kept(one)} end),
         exchanges}
      end

    %{shard | levels: levels}
  end

  ## Arguments

  defp check_mesh!(%{shape: shape} = mesh) do
    valid? =
      is_tuple(shape) and shape != {} and
        Enum.all?(Tuple.to_list(shape), &(is_integer(&1) and &1 > 0))

    if not valid? do
      raise ArgumentError,
            "Emily.Compiler: a mesh has a shape of positive integers, got: #{inspect(mesh)}"
    end
  end

  defp refuse_donation!(%{donate: []}), do: :ok

  defp refuse_donation!(_options), do: donated!()

  @spec donated!() :: no_return
  defp donated! do
    raise ArgumentError,
          "Emily.Compiler: shard_jit takes no :donate, and no tensors that are marked by Nx.donatable"
  end

  defp refuse_vectorized!(leaves) do
    for %T{vectorized_axes: [_ | _]} = leaf <- leaves do
      raise ArgumentError,
            "Emily.Compiler: shard_jit takes no vectorized tensors, got: #{inspect(Nx.to_template(leaf))}"
    end
  end

  defp check_count!(args_list, partitions, mesh) do
    if length(args_list) != partitions do
      raise ArgumentError,
            "Emily.Compiler: #{described(mesh)} takes a list of #{partitions} lists of arguments, " <>
              "got #{length(args_list)}"
    end
  end

  defp described(%{name: name, shape: shape}),
    do: "the mesh #{inspect(name)} of shape #{inspect(shape)}"

  # A split of each tensor among the arguments.
  defp splits!(shardings, vars, mesh) when is_list(shardings) do
    if length(shardings) != length(vars) do
      raise ArgumentError,
            "Emily.Compiler: :input_shardings has #{length(shardings)} entries for " <>
              "#{length(vars)} arguments"
    end

    shardings
    |> Enum.zip(vars)
    |> Enum.flat_map(fn {sharding, var} ->
      leaves = Composite.flatten_list([var])

      of_each =
        if is_list(sharding), do: sharding, else: Enum.map(leaves, fn _leaf -> sharding end)

      if length(of_each) != length(leaves) do
        raise ArgumentError,
              "Emily.Compiler: :input_shardings has a list of #{length(of_each)} maps for an argument of " <>
                "#{length(leaves)} tensors"
      end

      Enum.zip_with(of_each, leaves, &Mesh.split!(&1, &2, mesh.shape))
    end)
  end

  defp splits!(other, _vars, _mesh) do
    raise ArgumentError,
          "Emily.Compiler: shard_jit takes :input_shardings, a list with a map for each argument, " <>
            "got: #{inspect(other, limit: 10)}"
  end

  @doc false
  # A device for each partition. On the CPU all share it; each has a card of its own unless the user says otherwise.
  def devices!(nil, %{device: :cpu}, partitions, _mesh), do: List.duplicate(:cpu, partitions)

  def devices!(nil, _options, partitions, mesh) do
    cards = Device.cards()

    if length(cards) < partitions do
      raise ArgumentError,
            "Emily.Compiler: #{described(mesh)} has #{partitions} partitions, and this machine " <>
              "#{length(cards)} GPU(s): #{inspect(cards)}. Say where each is computed with :devices, a list " <>
              "in which a device may be named several times"
    end

    Enum.take(cards, partitions)
  end

  def devices!(devices, _options, partitions, mesh) do
    if not (is_list(devices) and length(devices) == partitions) do
      raise ArgumentError,
            "Emily.Compiler: #{described(mesh)} takes a list of #{partitions} devices, " <>
              "got: #{inspect(devices, limit: 10)}"
    end

    Enum.map(devices, &Device.check!(&1, "Emily.Compiler: each of :devices"))
  end

  defp given!(%T{} = tensor, leaf, at, number) do
    if {tensor.shape, tensor.type, tensor.vectorized_axes} != {leaf.shape, leaf.type, []} do
      raise ArgumentError,
            "Emily.Compiler: every partition takes tensors of the same shapes and types: tensor #{at} of partition " <>
              "#{number} is #{inspect(Nx.to_template(tensor))}, and of the first #{inspect(Nx.to_template(leaf))}"
    end

    # Nx up to 0.13 has no such field.
    if Map.get(tensor, :donatable?, false), do: donated!()
    tensor
  end

  ## Compilation

  defp cache_key(key, vars, mesh, splits, devices, options) do
    templates =
      for var <- vars,
          do: Composite.traverse(var, fn %T{} = t -> {t.type, t.shape, t.names} end)

    {__MODULE__, key, templates, mesh.shape, splits, Enum.uniq(devices), options.native,
     options.check_finite, options.fallback, options.fuse, Map.keys(options.hooks),
     Emily.Bounds.enabled?(), CodeVersion.current()}
  end

  defp compile(key, mesh, vars, splits, fun, devices, options) do
    {vars, []} =
      Enum.map_reduce(vars, splits, fn var, splits ->
        Composite.traverse(var, splits, fn leaf, [split | splits] ->
          {%{leaf | shape: Mesh.global(leaf.shape, split, mesh.shape)}, splits}
        end)
      end)

    parameters =
      for {{leaf, split}, slot} <-
            vars |> Composite.flatten_list() |> Enum.zip(splits) |> Enum.with_index(),
          do: Plan.given(leaf.shape, leaf.type, split, slot, :any, mesh.shape)

    expr = fun.(vars)
    plan = Plan.plan(expr, parameters, mesh.shape)

    levels =
      for {slots, nodes, exchanges} <- plan.levels do
        executables =
          for device <- devices, slots != [], into: %{} do
            {device, Executable.compile(key, nodes, %{options | device: device})}
          end

        {slots, executables, exchanges}
      end

    {template, []} =
      Composite.traverse(expr, plan.outputs, fn leaf, [{_slot, shape} | outputs] ->
        {%{Nx.to_template(leaf) | shape: shape}, outputs}
      end)

    :telemetry.execute(
      [:emily, :shard],
      %{
        partitions: Mesh.size(mesh.shape),
        segments: Enum.count(levels, fn {slots, _, _} -> slots != [] end),
        exchanges: Enum.sum(for {_, _, exchanges} <- levels, do: length(exchanges)),
        gathers: length(plan.gathered)
      },
      %{function: key, mesh: mesh, gathered: plan.gathered}
    )

    outputs = Enum.map(plan.outputs, &elem(&1, 0))

    %__MODULE__{
      levels: levels,
      later: later(levels, outputs, plan.slots),
      outputs: outputs,
      template: template,
      count: plan.slots
    }
  end

  # The slots that are wanted behind each level, and behind the last exchanges, where those of the results are.
  defp later(levels, outputs, count) do
    {later, _wanted} =
      List.foldr(levels, {[outputs], outputs}, fn level, {later, wanted} ->
        {_given, executables, exchanges} = level
        wanted = Enum.map(exchanges, & &1.from) ++ wanted

        # What has no program loads all.
        read =
          for {_device, %{program: program, inputs: inputs}} <- executables,
              slot <- if(program, do: inputs, else: Enum.to_list(0..(count - 1))),
              do: slot

        {[Enum.uniq(wanted) | later], Enum.uniq(read ++ wanted)}
      end)

    later
  end

  ## Running

  defp execute(shard, inputs, devices, mesh, options) do
    coordinates = Mesh.coordinates(mesh)

    partitions =
      for {{device, own}, number} <- devices |> Enum.zip(coordinates) |> Enum.with_index() do
        %{
          device: device,
          coordinates: own,
          stream: %Emily.Stream{ref: Streams.fetch(device, number), device: device}
        }
      end

    slots =
      for {args, partition} <- Enum.zip(inputs, partitions) do
        coordinates =
          Enum.map(partition.coordinates, &Nx.tensor(&1, type: :s32, backend: Nx.BinaryBackend))

        (args ++ coordinates) |> Enum.with_index(&{&2, &1}) |> Map.new()
      end

    # What a level's partitions exchange is taken by each before it runs the next.
    {levels, exchanges} =
      Enum.map_reduce(shard.levels, [], fn {given, executables, exchanges}, before ->
        {{before, given, executables, exchanges}, exchanges}
      end)

    last = {exchanges, [], %{}, []}

    {slots, _later} =
      Enum.reduce(levels ++ [last], {slots, shard.later}, fn level, {slots, [later | rest]} ->
        {before, given, executables, exchanges} = level
        all = Enum.zip(partitions, slots)
        wanted = for exchange <- exchanges, do: exchange.from

        each(all, fn {partition, own} ->
          own =
            Enum.reduce(before, own, &Map.put(&2, &1.to, Exchange.run(&1, partition, all, mesh)))

          own = segment(executables[partition.device], given, own, partition, shard, options)
          # Of which others take theirs.
          Emily.eval(for slot <- wanted, %T{data: %Backend{}} = tensor <- [own[slot]], do: tensor)
          Map.take(own, later)
        end)
        |> then(&{&1, rest})
      end)

    # All begin to compute before the first is read.
    for {own, partition} <- Enum.zip(slots, partitions) do
      result = filled(shard, own, partition.device)
      Emily.async_eval(result)
      result
    end
  end

  defp segment(nil, [], own, _partition, _shard, _options), do: own

  defp segment(executable, given, own, partition, shard, options) do
    # What has no program loads its arguments, those that it does not know too.
    none = Nx.tensor(0, type: :u8, backend: Nx.BinaryBackend)
    args = for slot <- 0..(shard.count - 1), do: fn -> Map.get(own, slot, none) end
    results = Executable.run(executable, args, [], partition.stream.ref, options.hooks)
    given |> Enum.zip(Tuple.to_list(results)) |> Enum.into(own)
  end

  defp filled(shard, own, device) do
    {result, []} =
      Composite.traverse(shard.template, shard.outputs, fn leaf, [slot | outputs] ->
        {%{leaf | data: Exchange.on(own[slot], device).data}, outputs}
      end)

    result
  end

  # What holds for the calling process, as a mode of Emily.Fallback, holds for those of the partitions. What is measured is
  # measured in the calling one.
  defp each(partitions, fun) do
    scope = for {key, value} <- Process.get(), scoped?(key), do: {key, value}

    run = fn {partition, _own} = one ->
      Emily.Stream.with_stream(partition.stream, fn -> fun.(one) end)
    end

    if Emily.Profile.on?(),
      do: Enum.map(partitions, run),
      else: partitions |> Enum.map(&Task.async(fn -> caught(scope, run, &1) end)) |> results()
  end

  defp caught(scope, run, one) do
    for {key, value} <- scope, do: Process.put(key, value)
    {:ok, run.(one)}
  catch
    kind, reason -> {kind, reason, __STACKTRACE__}
  end

  defp results(tasks) do
    tasks
    |> Task.await_many(:infinity)
    |> Enum.map(fn
      {:ok, result} -> result
      {kind, reason, stacktrace} -> :erlang.raise(kind, reason, stacktrace)
    end)
  end

  defp scoped?({module, _name}), do: scoped?(module)
  defp scoped?(key), do: is_atom(key) and match?("Elixir.Emily." <> _, Atom.to_string(key))
end
