defmodule Emily.Compiler.Shard.Rules do
  @moduledoc false
  # How each operation of Nx goes on with tensors that are split.
  #
  # Where there is no rule, the operands are gathered, and each partition computes the whole. A rule says how the operands have
  # to be split, `Plan.converted/4` makes them so, and how the result is then.

  import Emily.Compiler.Shard.Plan, only: [converted: 4, exchanged: 4, summed: 3, whole: 3]

  alias Emily.Compiler.Shard.{Mesh, Plan, Reshape}
  alias Emily.Compiler.Shard.Plan.Value
  alias Nx.Defn.{Composite, Expr, Tree}
  alias Nx.Tensor, as: T

  @unary Enum.map(Nx.Shared.unary_math_funs(), &elem(&1, 0)) ++
           [:abs, :bitwise_not, :ceil, :conjugate, :floor, :negate, :round, :sign] ++
           [:count_leading_zeros, :population_count, :real, :imag, :is_nan, :is_infinity] ++
           [:as_type, :bitcast, :logical_not]

  @binary [:add, :subtract, :multiply, :pow, :remainder, :divide, :atan2, :min, :max, :quotient] ++
            [:bitwise_and, :bitwise_or, :bitwise_xor, :left_shift, :right_shift] ++
            [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] ++
            [:logical_and, :logical_or, :logical_xor]

  @elementwise @unary ++ @binary ++ [:select, :clip]

  @reductions [:sum, :product, :reduce_max, :reduce_min, :all, :any]
  @windows [:window_sum, :window_product, :window_max, :window_min]

  @doc "The value of a node that is no parameter."
  def value(%T{data: %Expr{op: op, args: args}} = node, state), do: rule(op, args, node, state)

  ## Constants

  defp rule(op, args, node, state) when op in [:constant, :tensor, :iota, :eye] do
    local = %{node | data: %{node.data | args: args, context: :root}}

    {%Value{node: local, shape: node.shape, split: Mesh.whole(node.shape), level: :any}, state}
  end

  defp rule(:metadata, [%T{type: {kind, _}} = inner, _metadata], _node, state)
       when kind != :tuple,
       do: Plan.value(inner, state)

  defp rule(:elem, [tuple, index], node, state) do
    {tuple, state} = Plan.value(tuple, state)
    Plan.node(node, [tuple], Mesh.whole(node.shape), [], state, fn [tuple] -> [tuple, index] end)
  end

  ## Elementwise

  # What is a sum of summands is one of each of them.
  defp rule(:negate, [tensor], node, state) do
    {value, state} = Plan.value(tensor, state)
    Plan.node(node, [value], value.split, value.partial, state, & &1)
  end

  defp rule(op, args, node, state) when op in @elementwise do
    {values, state} = Enum.map_reduce(args, state, &Plan.value/2)

    if alike?(op, values) do
      [value | _] = values
      Plan.node(node, values, value.split, value.partial, state, & &1)
    else
      {values, state} = Enum.map_reduce(values, state, &summed(&1, node, &2))
      split = common(Enum.map(values, &aligned(&1, node.shape)))

      {values, state} =
        Enum.map_reduce(values, state, &converted(&1, operand_split(&1, split), node, &2))

      Plan.node(node, values, split, [], state, & &1)
    end
  end

  ## Shapes

  defp rule(:broadcast, [tensor, shape, axes], node, state) do
    {value, state} = operand(tensor, node, state)

    split =
      Enum.zip(axes, value.split)
      |> Enum.reduce(Mesh.whole(shape), fn {axis, split}, all ->
        List.replace_at(all, axis, split)
      end)

    local = Mesh.local(shape, split, state.mesh)
    Plan.node(node, [value], split, [], state, fn [tensor] -> [tensor, local, axes] end)
  end

  defp rule(:reshape, [tensor], node, state) do
    {value, state} = Plan.value(tensor, state)
    {kept, split} = Reshape.split(value.shape, value.split, node.shape, state.mesh)

    {value, state} =
      if kept == value.split, do: {value, state}, else: exchanged(value, kept, node, state)

    Plan.node(node, [value], split, value.partial, state, & &1)
  end

  defp rule(:squeeze, [tensor, axes], node, state) do
    {value, state} = Plan.value(tensor, state)
    kept = without(value.split, axes)

    {value, state} =
      if kept == value.split, do: {value, state}, else: exchanged(value, kept, node, state)

    split = for {split, axis} <- Enum.with_index(value.split), axis not in axes, do: split
    Plan.node(node, [value], split, value.partial, state, fn [tensor] -> [tensor, axes] end)
  end

  defp rule(:transpose, [tensor, axes], node, state) do
    {value, state} = Plan.value(tensor, state)
    split = Enum.map(axes, &Enum.at(value.split, &1))
    Plan.node(node, [value], split, value.partial, state, fn [tensor] -> [tensor, axes] end)
  end

  defp rule(:concatenate, [tensors, axis], node, state) do
    {values, state} = Enum.map_reduce(tensors, state, &operand(&1, node, &2))
    split = values |> Enum.map(&without(&1.split, [axis])) |> common()
    {values, state} = Enum.map_reduce(values, state, &converted(&1, split, node, &2))
    Plan.node(node, values, split, [], state, fn tensors -> [tensors, axis] end)
  end

  defp rule(:stack, [tensors, axis], node, state) do
    {values, state} = Enum.map_reduce(tensors, state, &operand(&1, node, &2))
    split = values |> Enum.map(& &1.split) |> common()
    {values, state} = Enum.map_reduce(values, state, &converted(&1, split, node, &2))
    split = List.insert_at(split, axis, [])
    Plan.node(node, values, split, [], state, fn tensors -> [tensors, axis] end)
  end

  defp rule(:slice, [tensor, starts, lengths, strides], node, state) do
    cut =
      for {axis, length, stride} <- axes_of(lengths, strides),
          {length, stride} != {elem(tensor.shape, axis), 1},
          do: axis

    {value, state} = along(tensor, cut, node, state)
    {starts, values, state} = starts(starts, node, state)
    local = lengths |> List.to_tuple() |> Mesh.local(value.split, state.mesh) |> Tuple.to_list()

    Plan.node(node, [value | values], value.split, [], state, fn [tensor | given] ->
      [tensor, filled(starts, given), local, strides]
    end)
  end

  defp rule(:put_slice, [tensor, starts, slice], node, state) do
    cut = for axis <- axes(tensor), elem(tensor.shape, axis) != elem(slice.shape, axis), do: axis
    {value, state} = along(tensor, cut, node, state)
    {slice, state} = operand(slice, node, state)
    split = common([value.split, without(slice.split, cut)])
    {value, state} = converted(value, split, node, state)
    {slice, state} = converted(slice, split, node, state)
    {starts, values, state} = starts(starts, node, state)

    Plan.node(node, [value, slice | values], split, [], state, fn [tensor, slice | given] ->
      [tensor, filled(starts, given), slice]
    end)
  end

  defp rule(:pad, [tensor, number, config], node, state) do
    padded = for {widths, axis} <- Enum.with_index(config), widths != {0, 0, 0}, do: axis
    {value, state} = along(tensor, padded, node, state)
    {number, state} = full(number, node, state)

    Plan.node(node, [value, number], value.split, [], state, fn [tensor, number] ->
      [tensor, number, config]
    end)
  end

  defp rule(:reverse, [tensor, axes], node, state),
    do: axiswise(tensor, axes, [axes], node, state)

  defp rule(op, [tensor, opts], node, state) when op in [:sort, :argsort],
    do: axiswise(tensor, [opts[:axis]], [opts], node, state)

  defp rule(op, [tensor, opts], node, state) when op in [:fft, :ifft],
    do: axiswise(tensor, [opts[:axis] || tuple_size(tensor.shape) - 1], [opts], node, state)

  ## Reductions

  defp rule(op, [tensor, opts], node, state) when op in @reductions do
    axes = opts[:axes] || axes(tensor)

    # Sums of parts are summands; other reductions want the whole of the axes.
    {value, state} =
      if op == :sum, do: operand(tensor, node, state), else: along(tensor, axes, node, state)

    partial = axes |> Enum.flat_map(&Enum.at(value.split, &1)) |> Enum.sort()
    split = reduced(value.split, axes, opts[:keep_axes])
    Plan.node(node, [value], split, partial, state, fn [tensor] -> [tensor, opts] end)
  end

  defp rule(op, [tensor, opts], node, state) when op in [:argmax, :argmin] do
    axes = if axis = opts[:axis], do: [axis], else: axes(tensor)
    {value, state} = along(tensor, axes, node, state)
    keep? = opts[:keep_axis]
    split = if opts[:axis] || keep?, do: reduced(value.split, axes, keep?), else: []
    Plan.node(node, [value], split, [], state, fn [tensor] -> [tensor, opts] end)
  end

  # The whole of what windows overlap is gathered. Of what they give each partition has its part again, where it can be divided.
  defp rule(op, [tensor, window, opts], node, state) when op in @windows do
    {value, state} = operand(tensor, node, state)
    split = value.split

    cut =
      for {size, axis} <- Enum.with_index(Tuple.to_list(window)),
          size != 1 or elem(node.shape, axis) != elem(tensor.shape, axis),
          do: axis

    {value, state} = exchanged(value, without(split, cut), node, state)

    {result, state} =
      Plan.node(node, [value], value.split, [], state, fn [tensor] -> [tensor, window, opts] end)

    again =
      for {axes, axis} <- Enum.with_index(split) do
        divides? = rem(elem(node.shape, axis), Mesh.factor(state.mesh, axes)) == 0
        if divides?, do: axes, else: []
      end

    converted(result, again, node, state)
  end

  ## Products

  defp rule(:dot, [left, left_axes, left_batch, right, right_axes, right_batch], node, state) do
    {left, state} = operand(left, node, state)
    {right, state} = operand(right, node, state)

    # What both have is split alike, then what each has alone, as far as the axes of the mesh go.
    {shared, used} =
      Enum.zip(left_batch ++ left_axes, right_batch ++ right_axes)
      |> Enum.map_reduce([], fn {l, r}, used ->
        split = free(Enum.at(left.split, l), used) || free(Enum.at(right.split, r), used) || []
        {split, split ++ used}
      end)

    {left_split, used} = product_split(left, left_batch ++ left_axes, shared, used)
    {right_split, _used} = product_split(right, right_batch ++ right_axes, shared, used)
    {left, state} = converted(left, left_split, node, state)
    {right, state} = converted(right, right_split, node, state)
    {batch, contracted} = Enum.split(shared, length(left_batch))

    split =
      batch ++
        others(left_split, left_batch ++ left_axes) ++
        others(right_split, right_batch ++ right_axes)

    partial = contracted |> Enum.concat() |> Enum.sort()

    Plan.node(node, [left, right], split, partial, state, fn [left, right] ->
      [left, left_axes, left_batch, right, right_axes, right_batch]
    end)
  end

  # Images of a batch, by a kernel that each partition has.
  defp rule(:conv, [input, kernel, opts], node, state) do
    by_batch? =
      hd(opts[:input_permutation]) == 0 and hd(opts[:output_permutation]) == 0 and
        opts[:batch_group_size] == 1

    rest = if by_batch?, do: tl(axes(input)), else: axes(input)
    {input, state} = along(input, rest, node, state)
    {kernel, state} = full(kernel, node, state)
    split = List.replace_at(Mesh.whole(node.shape), 0, hd(input.split))

    Plan.node(node, [input, kernel], split, [], state, fn [input, kernel] ->
      [input, kernel, opts]
    end)
  end

  # Rows of a table that each partition has.
  defp rule(:gather, [table, indices, opts], node, state) do
    {table, state} = full(table, node, state)
    {indices, state} = along(indices, [tuple_size(indices.shape) - 1], node, state)
    leading = Enum.drop(indices.split, -1)
    split = leading ++ List.duplicate([], tuple_size(node.shape) - length(leading))

    Plan.node(node, [table, indices], split, [], state, fn [table, indices] ->
      [table, indices, opts]
    end)
  end

  ## Compositions

  # Nx 0.12 and later.
  defp rule(:block, [block, args, default, callback], node, state),
    do: composed(args, default, node, state, &[block, &1, default, callback], linalg?(block))

  # Nx 0.11.
  defp rule(:optional, [%T{data: %Expr{args: args}} = call, default, callback], node, state) do
    rebuilt = fn args -> [%{call | data: %{call.data | args: args}}, default, callback] end
    linalg? = call.data.op in [:determinant, :cholesky, :solve, :lu, :qr, :svd, :eigh]
    composed(args, default, node, state, rebuilt, linalg?)
  end

  ## What each partition computes as a whole

  defp rule(op, _args, node, _state) when op in [:token, :attach_token, :hook, :io_call] do
    raise ArgumentError,
          "Emily.Compiler: shard_jit has no hooks, which one of #{inspect(Nx.to_template(node))} is"
  end

  defp rule(:cond, [clauses, last], node, state) do
    {clauses, state} =
      Enum.map_reduce(clauses, state, fn {predicate, body}, state ->
        {predicate, state} = branch(predicate, state)
        {body, state} = Composite.traverse(body, state, &branch/2)
        {{predicate, body}, state}
      end)

    {last, state} = Composite.traverse(last, state, &branch/2)
    chosen = put_args(node, [clauses, last])
    # The branches hold values in the place of what is outside of them.
    values = chosen |> held([]) |> Enum.uniq_by(& &1.node.data.id)
    alone(chosen, values, state)
  end

  defp rule(_op, _args, node, state) do
    {_, {values, state}} =
      Tree.apply_args(node, :scope, {[], state}, fn operand, {values, state} ->
        if is_struct(operand.data, Expr) and operand.data.op != :fun do
          {value, state} = full(operand, node, state)
          {operand, {[value | values], state}}
        else
          {operand, {values, state}}
        end
      end)

    Plan.node(node, Enum.reverse(values), split_of(node), [], state, fn given ->
      {args, []} =
        Tree.apply_args(node, :scope, given, fn
          %T{data: %Expr{op: :fun}} = fun, given -> {fun, given}
          %T{data: %Expr{}}, [operand | given] -> {operand, given}
          other, given -> {other, given}
        end)

      args
    end)
  end

  ## Parts of rules

  # A composition whose operands are whole stays one operation; else it goes on as what it is composed of. Matrices are
  # not taken apart.
  defp composed(args, default, node, state, rebuilt, linalg?) do
    tensors = for %T{} = tensor <- args, do: tensor
    {values, state} = Enum.map_reduce(tensors, state, &operand(&1, node, &2))
    split? = Enum.any?(values, &(Enum.concat(&1.split) != []))

    if split? and not linalg? and match?(%T{}, default) do
      Plan.within(values, state, &Plan.value(default, &1))
    else
      {values, state} = Enum.map_reduce(values, state, &whole(&1, node, &2))

      Plan.node(node, values, split_of(node), [], state, fn given ->
        {args, []} =
          Enum.map_reduce(args, given, fn
            %T{}, [operand | given] -> {operand, given}
            other, given -> {other, given}
          end)

        rebuilt.(args)
      end)
    end
  end

  defp linalg?(%module{}), do: match?(["Nx", "Block", "LinAlg" | _], Module.split(module))

  # A node within a branch: what is outside of it, gathered, or itself on such operands.
  defp branch(%T{data: %Expr{op: :parameter}} = node, state), do: stand_in(node, state)

  defp branch(%T{data: %Expr{id: id}} = node, %{outside: outside} = state)
       when is_map_key(outside, id) or is_map_key(state.values, id),
       do: stand_in(node, state)

  defp branch(%T{data: %Expr{op: op}} = node, state) when op in [:constant, :tensor, :iota, :eye],
    do: {node, state}

  defp branch(%T{data: %Expr{op: :fun}} = node, state), do: {node, state}

  defp branch(%T{data: %Expr{id: id}} = node, state) do
    case state.moved do
      %{{:branch, ^id} => inner} ->
        {inner, state}

      _ ->
        {args, state} = Tree.apply_args(node, :scope, state, &branch/2)
        inner = put_args(node, args)
        {inner, put_in(state.moved[{:branch, id}], inner)}
    end
  end

  defp branch(other, state), do: {other, state}

  defp stand_in(node, state) do
    {value, state} = full(node, node, state)
    {%{node | data: %{node.data | op: :stand_in, args: [value], id: value.node.data.id}}, state}
  end

  defp put_args(node, args),
    do: %{node | data: %{node.data | id: make_ref(), args: args, context: :root}}

  # The values that stand in branches.
  defp held(%T{data: %Expr{op: :stand_in, args: [value]}}, values), do: [value | values]

  defp held(%T{data: %Expr{}} = node, values) do
    {_, values} = Tree.apply_args(node, :scope, values, &{&1, held(&1, &2)})
    values
  end

  defp held(_other, values), do: values

  defp alone(chosen, values, state) do
    Plan.node(chosen, values, split_of(chosen), [], state, fn given ->
      nodes = values |> Enum.map(& &1.node.data.id) |> Enum.zip(given) |> Map.new()
      {args, _} = Tree.apply_args(chosen, :scope, %{}, &seated(&1, &2, nodes))
      args
    end)
  end

  # The nodes in the place of the values that stand for them; what is shared stays so.
  defp seated(%T{data: %Expr{op: :stand_in, id: id}}, done, nodes), do: {nodes[id], done}

  defp seated(%T{data: %Expr{id: id}} = node, done, nodes) do
    case done do
      %{^id => node} ->
        {node, done}

      _ ->
        {args, done} = Tree.apply_args(node, :scope, done, &seated(&1, &2, nodes))
        seated = %{node | data: %{node.data | args: args}}
        {seated, Map.put(done, id, seated)}
    end
  end

  defp seated(other, done, _nodes), do: {other, done}

  defp split_of(%T{type: {:tuple, _}}), do: []
  defp split_of(node), do: Mesh.whole(node.shape)

  # An operand that is no summand.
  defp operand(tensor, node, state) do
    {value, state} = Plan.value(tensor, state)
    summed(value, node, state)
  end

  defp full(tensor, node, state) do
    {value, state} = Plan.value(tensor, state)

    if value.split == [] and value.partial == [],
      do: {value, state},
      else: whole(value, node, state)
  end

  # An operand with the whole of some axes.
  defp along(tensor, axes, node, state) do
    {value, state} = operand(tensor, node, state)
    exchanged(value, without(value.split, axes), node, state)
  end

  defp axiswise(tensor, axes, args, node, state) do
    {value, state} = along(tensor, axes, node, state)
    Plan.node(node, [value], value.split, [], state, fn [tensor] -> [tensor | args] end)
  end

  # Summands are added to summands; else the sums are taken first.
  defp alike?(op, [%{partial: [_ | _] = partial} = left, %{partial: partial} = right])
       when op in [:add, :subtract],
       do: left.shape == right.shape and left.split == right.split

  defp alike?(_op, _values), do: false

  # The split of an operand as one of a result, whose last axes its own are.
  defp aligned(%{shape: shape, split: split}, of) do
    ones = List.duplicate([], tuple_size(of) - tuple_size(shape))

    own =
      Enum.zip_with([Tuple.to_list(shape), split], fn [size, axes] ->
        if size == 1, do: [], else: axes
      end)

    ones ++ own
  end

  defp operand_split(%{shape: shape}, split) do
    split = Enum.drop(split, length(split) - tuple_size(shape))

    Enum.zip_with(Tuple.to_list(shape), split, fn size, axes ->
      if size == 1, do: [], else: axes
    end)
  end

  # Of each axis the first split whose mesh axes are free.
  defp common(splits) do
    {split, _used} =
      splits
      |> Enum.zip_with(& &1)
      |> Enum.map_reduce([], fn splits, used ->
        split = Enum.find_value(splits, [], &free(&1, used))
        {split, split ++ used}
      end)

    split
  end

  defp free([], _used), do: nil
  defp free(axes, used), do: if(Enum.any?(axes, &(&1 in used)), do: nil, else: axes)

  defp product_split(value, shared, splits, used) do
    by_axis = shared |> Enum.zip(splits) |> Map.new()

    value.split
    |> Enum.with_index()
    |> Enum.map_reduce(used, fn {axes, axis}, used ->
      case by_axis do
        %{^axis => split} ->
          {split, used}

        _ ->
          split = free(axes, used) || []
          {split, split ++ used}
      end
    end)
  end

  defp others(split, axes),
    do: for({split, axis} <- Enum.with_index(split), axis not in axes, do: split)

  defp without(split, axes) do
    for {split, axis} <- Enum.with_index(split), do: if(axis in axes, do: [], else: split)
  end

  defp reduced(split, axes, true), do: without(split, axes)
  defp reduced(split, axes, _keep), do: others(split, axes)

  defp axes(%{shape: shape}), do: Enum.to_list(0..(tuple_size(shape) - 1)//1)

  defp axes_of(lengths, strides) do
    lengths
    |> Enum.zip(strides)
    |> Enum.with_index(fn {length, stride}, axis -> {axis, length, stride} end)
  end

  # Starts that are tensors are whole.
  defp starts(starts, node, state) do
    {starts, {values, state}} =
      Enum.map_reduce(starts, {[], state}, fn
        start, acc when is_integer(start) ->
          {start, acc}

        %T{} = start, {values, state} ->
          {value, state} = full(start, node, state)
          {:given, {[value | values], state}}
      end)

    {starts, Enum.reverse(values), state}
  end

  defp filled(starts, given) do
    {starts, []} =
      Enum.map_reduce(starts, given, fn
        :given, [start | given] -> {start, given}
        start, given -> {start, given}
      end)

    starts
  end
end
