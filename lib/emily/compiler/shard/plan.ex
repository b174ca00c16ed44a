defmodule Emily.Compiler.Shard.Plan do
  @moduledoc false
  # A function over a mesh, as segments that every partition computes by itself, and what partitions exchange between them.
  #
  # Each node of Nx's expression becomes a *value*: a node of a partition's own expression, which holds its part of the tensor
  # (`split`), or, where mesh axes are `partial`, a summand of it. `level` is the segment that computes it, or `:any` for
  # parameters and constants. What crosses from one segment to a later one has a *slot*: slots are the parameters of all
  # segments. The rules of operations are in `Emily.Compiler.Shard.Rules`.

  alias Emily.Compiler.Shard.{Mesh, Rules}
  alias Nx.Defn.{Composite, Expr}
  alias Nx.Tensor, as: T

  defmodule Value do
    @moduledoc false
    @enforce_keys [:node, :shape, :split, :level]
    defstruct [:node, :shape, :split, :level, partial: []]
  end

  @enforce_keys [:mesh, :slots, :coordinates]
  defstruct [:mesh, :slots, :coordinates] ++
              [
                # By the ids of nodes: their values, and where cond's branches look for what is outside of them.
                values: %{},
                outside: %{},
                parameters: nil,
                # By levels: `{slot, node}` of what a segment gives, and exchanges behind it.
                given: %{},
                exchanges: %{},
                # What was moved or exchanged already.
                moved: %{},
                # `{operation, shape}` of what was gathered.
                gathered: []
              ]

  @doc """
  Plans a composite of expressions, whose parameters are split as the list says.

  `outputs` are slots with the splits of the results, `segments` the expressions of each level with the slots that they fill,
  and `exchanges` what follows each.
  """
  def plan(expr, parameters, mesh) do
    count = length(parameters)
    axes = tuple_size(mesh)

    coordinates =
      for axis <- 0..(axes - 1), do: parameter({}, {:s, 32}, count + axis)

    state = %__MODULE__{
      mesh: mesh,
      slots: count + axes,
      coordinates: coordinates,
      outside: outside(expr),
      parameters: List.to_tuple(parameters)
    }

    {outputs, state} =
      [expr]
      |> Composite.flatten_list()
      |> Enum.map_reduce(state, fn leaf, state ->
        refuse_vectorized(leaf)
        {value, state} = value(leaf, state)
        {value, state} = summed(value, leaf, state)
        {slot, state} = slot(value, state)
        {{slot, Mesh.local(value.shape, value.split, mesh)}, state}
      end)

    %{
      outputs: outputs,
      slots: state.slots,
      levels: levels(state),
      gathered: Enum.reverse(state.gathered)
    }
  end

  # From the exchanges of parameters, which are before the first segment.
  defp levels(state) do
    last = Enum.max(Map.keys(state.given) ++ Map.keys(state.exchanges), fn -> -1 end)

    for level <- -1..last//1 do
      {slots, nodes} = state.given |> Map.get(level, []) |> Enum.reverse() |> Enum.unzip()
      {slots, List.to_tuple(nodes), state.exchanges |> Map.get(level, []) |> Enum.reverse()}
    end
  end

  defp refuse_vectorized(%T{vectorized_axes: []}), do: :ok

  defp refuse_vectorized(tensor) do
    raise ArgumentError,
          "Emily.Compiler: shard_jit has no vectorized tensors, got: #{inspect(Nx.to_template(tensor))}"
  end

  # The ids of the nodes that are needed whichever branches of conds are taken.
  defp outside(expr), do: Composite.reduce(expr, %{}, &outside/2)

  defp outside(%T{data: %Expr{id: id}}, seen) when is_map_key(seen, id), do: seen

  defp outside(%T{data: %Expr{id: id, op: :cond, args: [[{first, _} | _], _last]}}, seen),
    do: outside(first, Map.put(seen, id, true))

  defp outside(%T{data: %Expr{id: id}} = node, seen) do
    {_, seen} =
      Nx.Defn.Tree.apply_args(node, :scope, Map.put(seen, id, true), &{&1, outside(&1, &2)})

    seen
  end

  defp outside(_other, seen), do: seen

  ## Values

  @doc "The value of a node."
  def value(%T{data: %Expr{op: :parameter, args: [index]}}, state),
    do: {elem(state.parameters, index), state}

  def value(%T{data: %Expr{id: id}} = node, state) do
    case state.values do
      %{^id => value} ->
        {value, state}

      _ ->
        {value, state} = Rules.value(node, state)
        {value, put_in(state.values[id], value)}
    end
  end

  @doc "The value of a parameter in a slot."
  def given(shape, type, split, slot, level, mesh) do
    node = parameter(Mesh.local(shape, split, mesh), type, slot)
    %Value{node: node, shape: shape, split: split, level: level}
  end

  defp parameter(shape, type, slot), do: Expr.parameter(:root, type, shape, slot)

  @doc "What a function gives of an expression that knows no parameters but these values."
  def within(parameters, state, fun) do
    outer = {state.parameters, state.values}

    {result, state} =
      fun.(%{state | parameters: List.to_tuple(parameters), values: %{}})

    {parameters, values} = outer
    {result, %{state | parameters: parameters, values: values}}
  end

  @doc "A node of the partition's own, with values in the place of tensors."
  def node(%T{} = node, values, split, partial, state, args) do
    level = level(values)
    {nodes, state} = Enum.map_reduce(values, state, &at(&1, level, &2))

    local =
      case node do
        %T{type: {:tuple, _}} -> node
        node -> %{node | shape: Mesh.local(node.shape, split, state.mesh)}
      end

    local = %{local | data: %{node.data | id: make_ref(), args: args.(nodes), context: :root}}

    {%Value{node: local, shape: node.shape, split: split, partial: partial, level: level}, state}
  end

  @doc "The segment that knows all of these values."
  def level(values),
    do: Enum.reduce(values, 0, &if(&1.level == :any, do: &2, else: max(&1.level, &2)))

  # A value's node in a segment.
  defp at(%{level: level, node: node}, level, state), do: {node, state}
  defp at(%{level: :any, node: node}, _level, state), do: {node, state}

  defp at(%{node: %T{data: %Expr{op: :parameter}} = node}, _level, state), do: {node, state}

  defp at(value, _level, state) do
    {slot, state} = slot(value, state)
    {parameter(value.node.shape, value.node.type, slot), state}
  end

  # The slot of a value.
  defp slot(%{node: %T{data: %Expr{op: :parameter, args: [slot]}}}, state), do: {slot, state}

  defp slot(%{node: %T{data: %Expr{id: id}} = node} = value, state) do
    case state.moved do
      %{^id => slot} ->
        {slot, state}

      moved ->
        slot = state.slots
        level = if value.level == :any, do: 0, else: value.level
        given = Map.update(state.given, level, [{slot, node}], &[{slot, node} | &1])
        {slot, %{state | slots: slot + 1, given: given, moved: Map.put(moved, id, slot)}}
    end
  end

  ## Exchanges

  @doc "A value that is no summand."
  def summed(%{partial: []} = value, _node, state), do: {value, state}
  def summed(value, node, state), do: exchanged(value, value.split, node, state)

  @doc "The whole of a value, on each partition."
  def whole(value, node, state), do: exchanged(value, Mesh.whole(value.shape), node, state)

  @doc """
  A value with less of a split: of each axis all of it or nothing. `node` is what asks for it. What is left of the split is
  as it was, and the value is no summand.
  """
  def exchanged(%{split: split, partial: []} = value, split, _node, state), do: {value, state}

  def exchanged(%{node: %T{data: %Expr{id: id}}} = value, split, node, state) do
    case state.moved do
      %{{^id, ^split} => value} ->
        {value, state}

      _ ->
        {slot, state} = slot(value, state)
        level = exchange_level(value)
        gathered = for {axes, []} <- Enum.zip(value.split, split), axes != [], do: axes

        exchange = %{
          from: slot,
          to: state.slots,
          sum: value.partial,
          gather:
            for(
              {{axes, []}, axis} <- Enum.with_index(Enum.zip(value.split, split)),
              axes != [],
              do: {axis, axes}
            )
        }

        result =
          given(
            value.shape,
            value.node.type,
            split,
            state.slots,
            level + 1,
            state.mesh
          )

        state = %{
          state
          | slots: state.slots + 1,
            moved: Map.put(state.moved, {id, split}, result),
            exchanges: Map.update(state.exchanges, level, [exchange], &[exchange | &1]),
            gathered:
              if(gathered == [],
                do: state.gathered,
                else: [{node.data.op, value.shape} | state.gathered]
              )
        }

        {result, state}
    end
  end

  # Parameters are exchanged before all segments.
  defp exchange_level(%{level: :any, node: %T{data: %Expr{op: :parameter}}}), do: -1
  defp exchange_level(%{level: :any}), do: 0
  defp exchange_level(%{level: level}), do: level

  @doc "A value that is split as another: what is split otherwise is gathered, and of what is whole each takes its part."
  def converted(value, split, node, state) do
    kept = Enum.zip_with(value.split, split, &if(&1 == &2, do: &1, else: []))
    {value, state} = exchanged(value, kept, node, state)
    own(value, split, state)
  end

  defp own(%{split: split} = value, split, state), do: {value, state}

  # A constant is the same in each part.
  defp own(%{node: %T{data: %Expr{op: :constant}} = node} = value, split, state) do
    local = %{node | shape: Mesh.local(value.shape, split, state.mesh)}
    {%{value | node: %{local | data: %{node.data | id: make_ref()}}, split: split}, state}
  end

  defp own(%{node: %T{data: %Expr{id: id}} = node} = value, split, state) do
    case state.moved do
      %{{:own, ^id, ^split} => value} ->
        {value, state}

      _ ->
        shape = Mesh.local(value.shape, split, state.mesh)

        starts =
          Enum.zip_with([value.split, split, Tuple.to_list(shape)], fn
            [same, same, _size] -> 0
            [[], axes, size] -> Nx.multiply(place(axes, state), size)
          end)

        lengths = Tuple.to_list(shape)
        strides = List.duplicate(1, length(lengths))
        args = [node, starts, lengths, strides]
        level = if value.level == :any, do: 0, else: value.level
        data = %{node.data | id: make_ref(), op: :slice, args: args, context: :root}
        sliced = %{value | node: %{node | shape: shape, data: data}, split: split, level: level}
        {sliced, put_in(state.moved[{:own, id, split}], sliced)}
    end
  end

  # The number of a partition's part.
  defp place(axes, state) do
    Enum.reduce(axes, nil, fn axis, place ->
      own = Enum.at(state.coordinates, axis)
      if place, do: Nx.add(Nx.multiply(place, elem(state.mesh, axis)), own), else: own
    end)
  end
end
