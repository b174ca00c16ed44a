defmodule Emily.Compiler.Builder do
  @moduledoc false
  # An expression of Nx.Defn as a function of `Emily.Native.Program`.
  #
  # Each node becomes a step whose meaning is `Emily.Lower`'s. What needs Elixir, a hook or a function
  # of the caller's, becomes a call; `calls` are what answers them.

  alias Emily.Compiler.{Calls, Narrow, Needs, Scopes, Turned, Uniform}
  alias Emily.{Bounds, Fallback, Lower}
  alias Nx.Defn.{Composite, Expr, Tree}
  alias Nx.Tensor, as: T

  @enforce_keys [:device, :hooks, :fallback]
  defstruct [:device, :hooks, :fallback, parameters: :inputs, scopes: []] ++
              [
                needs: %Needs{},
                narrowed: %{},
                emitted: 0,
                used: %{},
                calls: [],
                called: 0,
                bytes: 0,
                tensors: %{},
                # Of operands that have another type than their nodes.
                types: %{},
                # By their ids, what the states of loops are like that have wider types than Nx says.
                wider: %{}
              ]

  # Operations whose lowering is a condition, seen as a number.
  @conditions [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] ++
                [:logical_and, :logical_or, :logical_xor, :logical_not, :is_nan, :is_infinity] ++
                [:all, :any]

  @typedoc """
  The function of the program, the numbers of the parameters that it takes, in their order, its calls by
  their index, and the bytes of the constants that were copied for it.
  """
  @type built :: %{
          function: Emily.Native.Program.fun_term(),
          inputs: [non_neg_integer],
          calls: [Calls.t()],
          bytes: non_neg_integer
        }

  @doc """
  Builds the program of a composite of expressions. For want of a program it answers the first node of a
  type that MLX lacks, whose tensors no register can hold.

  ## Options

    * `:device` - where the program is to run
    * `:hooks` - the names of the hooks that have functions of the caller's
    * `:fallback` - `:raise`, `:warn` or `:eval`: what to do about an operation that MLX cannot do
  """
  @spec build(Nx.Container.t(), keyword) :: built | {:held, %T{}}
  def build(expr, opts) do
    state = %{struct!(__MODULE__, opts) | narrowed: Narrow.narrowed(expr)}

    # In graphs of many conditions that share much of each other, the branches would hold all of it again and
    # again. There what waits comes before the conditions that share it, though none may need it.
    catch_many(fn -> built(expr, state) end) || built(expr, put_in(state.needs.once, true))
  end

  defp catch_many(fun) do
    fun.()
  catch
    :too_many -> nil
  end

  defp built(expr, state) do
    state = push(state, expr)
    {results, state} = operands(expr, state)
    {%{steps: steps}, state} = pop(state)
    {inputs, variables} = state.used |> Enum.sort() |> Enum.unzip()
    function = {variables, steps, results}
    calls = Enum.reverse(state.calls)
    %{function: function, inputs: inputs, calls: calls, bytes: state.bytes}
  catch
    {__MODULE__, node} -> {:held, node}
  end

  ## Operands

  # A node's value is an operand, or `{:many, operands}` with a tuple of them.
  defp value(%T{type: {kind, _} = type} = node, state) when kind != :tuple do
    if Lower.type?(type), do: value_of(node, state), else: throw({__MODULE__, node})
  end

  defp value(node, state), do: value_of(node, state)

  defp value_of(%T{data: %Expr{op: :metadata, args: [expr, _metadata]}}, state),
    do: many(expr, state)

  defp value_of(%T{data: %Expr{op: :constant, args: [number]}, shape: {}, type: type}, state) do
    {Lower.Types.number([], number, type), state}
  end

  # Layers of a model have tables of their own with the same numbers.
  defp value_of(%T{data: %Expr{op: :tensor, args: [tensor]}}, state) do
    key = same(tensor)

    case state.tensors do
      %{^key => operand} ->
        {operand, state}

      tensors ->
        operand = Emily.Backend.operand(tensor, state.device)
        copied? = is_reference(operand) and not match?(%Emily.Backend{ref: ^operand}, tensor.data)
        bytes = if copied?, do: Emily.Native.nbytes(operand), else: 0
        tensors = if key, do: Map.put(tensors, key, operand), else: tensors
        {operand, %{state | bytes: state.bytes + bytes, tensors: tensors}}
    end
  end

  defp value_of(%T{data: %Expr{op: :elem, args: [tuple, index]}}, state) do
    {{:many, operands}, state} = value(tuple, state)
    {elem(operands, index), state}
  end

  defp value_of(%T{data: %Expr{id: id}} = node, state) do
    case Scopes.fetch(state.scopes, id) do
      {:ok, value} ->
        {value, state}

      :error ->
        waits? = Needs.waits?(state.needs, id) and not state.needs.once
        leaves = if waits?, do: Needs.leaves(node)
        {inner, outer} = Scopes.split(state.scopes, id, leaves != nil)
        state = if waits?, do: counted(state), else: state
        {value, state} = first(node, %{state | scopes: outer})
        scopes = Scopes.remember(state.scopes, id, value, leaves)
        {value, %{state | scopes: inner ++ scopes}}
    end
  end

  # What tells a small tensor by its numbers.
  defp same(%T{data: %Nx.BinaryBackend{state: bytes}, type: type, shape: shape})
       when byte_size(bytes) <= 65_536,
       do: {type, shape, bytes}

  defp same(_tensor), do: nil

  defp counted(%{emitted: emitted, needs: %{count: count}}) when emitted > 8 * count + 500,
    do: throw(:too_many)

  defp counted(state), do: %{state | emitted: state.emitted + 1}

  # A node that a condition before may have computed.
  defp first(%T{data: %Expr{id: id}} = node, state) do
    case Scopes.maybe(state.scopes, id) do
      nil -> emit(node, state)
      maybe -> unless_known(maybe, node, state)
    end
  end

  # The value of a tensor, or of a tuple of them.
  defp many(%T{} = expr, state), do: value(expr, state)

  defp many(composite, state) do
    {operands, state} = operands(composite, state)
    {formed(operands, true), state}
  end

  # The leaves of a composite, each one operand.
  defp operands(composite, state), do: operands_as(composite, composite, "a composite", state)

  # The leaves of a composite, with the types of those of another.
  defp operands_as(templates, composite, what, state) do
    templates = Composite.flatten_list([templates])
    leaves = Composite.flatten_list([composite])

    if length(templates) != length(leaves) do
      raise ArgumentError,
            "#{what}: expected #{length(templates)} tensors, got #{length(leaves)}"
    end

    templates
    |> Enum.zip(leaves)
    |> Enum.map_reduce(state, fn {template, leaf}, state ->
      {operand, state} = value(leaf, state)
      {as(template, leaf, {operand, type(operand, leaf, state)}, what), state}
    end)
  end

  # Nx's evaluator goes by what a tensor has, not by what its node says: so does a program.
  defp type(operand, %T{type: type}, %{types: types}), do: Map.get(types, operand, type)

  defp typed(state, operands, types),
    do: %{state | types: operands |> Enum.zip(types) |> Enum.into(state.types)}

  defp as(%T{type: type} = template, leaf, {operand, actual}, what) do
    cond do
      sizes(template) != sizes(leaf) or kind(type) < kind(leaf.type) ->
        raise ArgumentError,
              "#{what}: expected a tensor as #{inspect(Nx.to_template(template))}, " <>
                "got: #{inspect(Nx.to_template(leaf))}"

      type == actual ->
        operand

      not Lower.type?(type) ->
        throw({__MODULE__, template})

      true ->
        {:astype, operand, Lower.dtype(type)}
    end
  end

  # Numbers of one kind are of those that follow it.
  defp kind(type) do
    cond do
      Nx.Type.integer?(type) -> 0
      Nx.Type.float?(type) -> 1
      true -> 2
    end
  end

  defp sizes(%T{vectorized_axes: axes, shape: shape}),
    do: Keyword.values(axes) ++ Tuple.to_list(shape)

  # A tensor with its operand, as lowerings take it.
  defp argument(%T{data: %Expr{op: :fun}} = fun, state), do: {fun, state}

  defp argument(%T{} = node, state) do
    {operand, state} = value(node, state)
    node = %{node | type: type(operand, node, state)}
    {Emily.Backend.tensor(node, operand, state.device), state}
  end

  defp argument(other, state), do: {other, state}

  defp predicate(%T{} = node, state) do
    {operand, state} = value(node, state)
    {Emily.Lower.Types.truthy(operand, type(operand, node, state)), state}
  end

  ## Nodes

  defp emit(%T{data: %Expr{op: :parameter, args: [index]}}, %{parameters: :inputs} = state) do
    case state.used do
      %{^index => variable} ->
        {{:var, variable}, state}

      used ->
        variable = unique()
        {{:var, variable}, %{state | used: Map.put(used, index, variable)}}
    end
  end

  defp emit(%T{data: %Expr{op: :parameter, args: [index]}}, state) do
    {elem(state.parameters, index), state}
  end

  defp emit(%T{data: %Expr{op: :cond, args: [clauses, last]}} = node, state) do
    choose(clauses, last, node, state)
  end

  defp emit(%T{data: %Expr{id: id, op: :while, args: [_, arg, _, _]}} = node, state),
    do: repeat(node, state.wider[id] || Composite.flatten_list([arg]), state)

  defp emit(%T{data: %Expr{op: :slice, id: id}}, %{narrowed: narrowed} = state)
       when is_map_key(narrowed, id),
       do: value(narrowed[id], state)

  # Nx 0.12 and later.
  defp emit(%T{data: %Expr{op: :block, args: [block, args, default, callback]}} = node, state) do
    {arguments, state} = Enum.map_reduce(args, state, &argument/2)
    out = template(node, default)

    if Bounds.checked?(block) do
      eager = &apply(Emily.Backend, :block, [block, out, &1, callback])
      call(Calls.eager(eager, arguments), Calls.tensors(arguments), node, state)
    else
      lower(block, node, arguments, default, state, fn -> Lower.block(block, out, arguments) end)
    end
  end

  # Nx 0.11.
  defp emit(%T{data: %Expr{op: :optional, args: [call, default, _callback]}} = node, state) do
    %T{data: %Expr{op: name}} = call
    {arguments, state} = Tree.apply_args(call, state, &argument/2)
    out = template(call, default)
    lower(name, node, arguments, default, state, fn -> Lower.optional(name, out, arguments) end)
  end

  defp emit(%T{data: %Expr{op: :token, args: [token]}}, state) do
    state = token.hooks |> Enum.reverse() |> Enum.reduce(state, &hook/2)
    {{:many, {}}, state}
  end

  defp emit(%T{data: %Expr{op: :attach_token, args: [token, expr]}}, state) do
    {_, state} = value(token, state)
    value(expr, state)
  end

  # Nx 0.13, and what comes after it.
  defp emit(%T{data: %Expr{op: op, args: [expr, callback, _template, _ref]}}, state)
       when op in [:hook, :io_call] do
    {value, state} = many(expr, state)

    state =
      case callback do
        {:token_hook, seen, inner} -> hook(hook_of(seen, inner), state)
        callback -> hook(hook_of(expr, callback), state)
      end

    {value, state}
  end

  defp emit(%T{data: %Expr{op: :runtime_call, args: [expr, fun, out | opts]}} = node, state) do
    {operands, state} = operands(expr, state)
    call_operands(Calls.runtime(expr, fun, out, opts), operands, node, state)
  end

  defp emit(%T{data: %Expr{op: name}} = node, state) do
    node = node |> Turned.turned() |> Uniform.numbers()
    {arguments, state} = Tree.apply_args(node, state, &argument/2)
    out = template(node, nil)

    if Bounds.checked?(name),
      do: eagerly(name, arguments, node, state),
      else: lower(name, node, arguments, nil, state, fn -> Lower.op(name, out, arguments) end)
  end

  defp lower(name, node, arguments, default, state, lowering) do
    refusing = fn ->
      refuse_f64(node, state.device)
      lowering.()
    end

    case described(name, arguments, refusing) do
      :default ->
        inline(default, arguments, state)

      {:fallback, reason} ->
        consequence = "the program calls Nx.BinaryBackend for it"
        if state.fallback == :raise, do: Fallback.refuse(name, arguments, reason)
        if state.fallback == :warn, do: Fallback.warn(name, arguments, reason, consequence)
        eagerly(name, arguments, node, state)

      expr ->
        step(expr, node, state)
    end
  end

  defp refuse_f64(%T{type: {:tuple, _}}, _device), do: :ok
  defp refuse_f64(%T{type: type}, device), do: Emily.Backend.refuse_f64(type, device)

  # Types that MLX lacks are refused where the operation is not known.
  defp described(name, arguments, fun) do
    fun.()
  rescue
    error in ArgumentError ->
      message = "#{Fallback.described(name, arguments)}: #{error.message}"
      reraise ArgumentError, message, __STACKTRACE__
  end

  # Nx's own composition, in the place of the node.
  defp inline(default, arguments, state) do
    outer = state.parameters
    operands = for %T{} = tensor <- arguments, do: Lower.value(tensor)
    state = push(%{state | parameters: List.to_tuple(operands)}, default)
    {value, state} = many(default, state)
    {%{steps: steps}, state} = pop(%{state | parameters: outer})
    {value, add(state, steps)}
  end

  ## Loops

  # A loop whose state is as the templates. Nx's gradients of loops begin with another type than they go on with, mostly
  # f32: the state has the type that holds both.
  defp repeat(%T{data: %Expr{args: [initial, _arg, condition, body]}} = node, arg, state) do
    leaves = Composite.flatten_list([body])
    types = for %T{type: type} <- arg, do: type
    before = state
    {initial, state} = operands_as(List.to_tuple(arg), initial, "while", state)

    {condition, state} =
      function(types, condition, state, fn state ->
        {operand, state} = predicate(condition, state)
        {[operand], state}
      end)

    {{variables, steps, next}, state} =
      function(types, body, state, fn state ->
        Enum.map_reduce(leaves, state, fn leaf, state ->
          {operand, state} = value(leaf, state)
          {{operand, type(operand, leaf, state)}, state}
        end)
      end)

    case wider(arg, next) do
      ^arg ->
        next =
          Enum.zip_with([arg, leaves, next], fn [arg, leaf, one] ->
            as(arg, leaf, one, "while")
          end)

        {value, state} =
          several({:while, initial, condition, {variables, steps, next}}, node, state)

        {value, typed(state, listed(value), types)}

      # Begun again, with what is known of the loops inside by now.
      wider ->
        repeat(node, wider, %{before | wider: Map.put(state.wider, node.data.id, wider)})
    end
  end

  # What is no float stays what it is.
  defp wider(arg, next) do
    Enum.zip_with(arg, next, fn %T{type: type} = one, {_operand, other} ->
      if kind(type) == 1 and kind(other) == 1,
        do: %{one | type: Nx.Type.merge(type, other)},
        else: one
    end)
  end

  ## Conditions

  defp choose([{condition, body} | clauses], last, node, state) do
    {condition, state} = predicate(condition, state)
    state = before_branches({body, clauses, last}, state)
    {certain, state} = needs(state, &Needs.certain(&1, body))
    yes = Scopes.push_branch(state.scopes, body, certain, {condition, true})
    # Branches have one type, which is that of the node.
    like = if match?({:tuple, _}, node.type), do: last, else: node
    {yes, state} = block(yes, state, &operands_as(like, body, "cond", &1))

    {certain, state} = needs(state, &Needs.certain(&1, clauses, last, node.data.id))

    no =
      Scopes.push_branch(
        state.scopes,
        remaining(clauses, last, node),
        certain,
        {condition, false}
      )

    {no, state} =
      block(no, state, fn state ->
        if clauses == [] do
          operands_as(like, last, "cond", state)
        else
          {value, state} = choose(clauses, last, node, state)
          {listed(value), state}
        end
      end)

    {operands, state} = fork(condition, yes, no, state)
    {formed(operands, match?({:tuple, _}, node.type)), state}
  end

  # What the branch of a false predicate holds: the condition of the clauses after it.
  defp remaining([], last, _node), do: last
  defp remaining(clauses, last, node), do: Tree.put_args(node, [clauses, last])

  # What the scopes around need in any case comes before the branches, which would compute it again.
  defp before_branches(_branches, %{needs: %{once: true}} = state), do: state

  defp before_branches(branches, state) do
    sought = &Scopes.standing(state.scopes, &1)
    state.needs |> Needs.within(branches, sought) |> Enum.reduce(state, &elem(value(&1, &2), 1))
  end

  # The value of a node where a flag says that there is one, else the node.
  defp unless_known(%{value: value, flag: flag}, node, state) do
    known = Scopes.push_again(state.scopes, %{}, {flag, true})
    {known, state} = block(known, state, &{listed(value), &1})

    {certain, state} = needs(state, &Needs.certain(&1, node))
    unknown = Scopes.push_again(state.scopes, certain, {flag, false})

    {unknown, state} =
      block(unknown, state, fn state ->
        {value, state} = emit(node, state)
        {listed(value), state}
      end)

    {operands, state} = fork(flag, known, unknown, state)
    {formed(operands, match?({:many, _}, value)), state}
  end

  # The results of one of two branches. What each hands out beside them, the scopes around know.
  defp fork(condition, {yes, yes_scope}, {no, no_scope}, state) do
    handed_out = Scopes.handed_out(state.scopes, yes_scope, no_scope)
    variable = unique()
    branch = fn scope, results, more -> {[], scope.steps, results ++ List.flatten(more)} end
    yes_more = for {_, leaves, yes, no} <- handed_out, do: given(yes, no, leaves)
    no_more = for {_, leaves, yes, no} <- handed_out, do: given(no, yes, leaves)
    yes_block = branch.(yes_scope, yes, yes_more)
    cond = {:cond, condition, yes_block, branch.(no_scope, no, no_more)}
    state = add(state, [{variable, cond}])

    operands = variable |> elements(yes_block |> elem(2) |> length()) |> listed()
    state = alike(state, yes, no, operands)
    {results, more} = Enum.split(operands, length(yes))
    {results, known(handed_out, more, condition, state)}
  end

  # Both branches have results of one type.
  defp alike(state, yes, no, operands) do
    [yes, no, operands]
    |> Enum.zip()
    |> Enum.reduce(state, fn {yes, no, operand}, state ->
      case state.types[yes] || state.types[no] do
        nil -> state
        type -> typed(state, [operand], [type])
      end
    end)
  end

  # A value with its flag, which is left out where both branches have one.
  defp given(standing, other, leaves) do
    operands = if standing.value, do: listed(standing.value), else: Enum.map(leaves, &nothing/1)

    if standing.flag == true and other.flag == true,
      do: operands,
      else: operands ++ [flag(standing.flag)]
  end

  defp flag(flag) when is_boolean(flag), do: Emily.Expr.scalar(if(flag, do: 1, else: 0), :bool)
  defp flag(operand), do: operand

  # Nobody reads it, so MLX does not compute it.
  defp nothing(%T{shape: shape, type: type}),
    do: {:broadcast_to, Emily.Expr.scalar(0, Lower.dtype(type)), Tuple.to_list(shape)}

  defp known([], [], _condition, state), do: state

  defp known([{id, leaves, yes, no} | handed_out], operands, condition, state) do
    {operands, rest} = Enum.split(operands, length(leaves))
    standing = yes.value || no.value
    state = alike(state, listed(standing), listed(no.value || standing), operands)
    value = formed(operands, match?({:many, _}, standing))

    if yes.flag == true and no.flag == true do
      scopes = Scopes.remember(state.scopes, id, value, leaves)
      known(handed_out, rest, condition, %{state | scopes: scopes})
    else
      [flag | rest] = rest
      maybe = %{value: value, flag: flag, under: under(yes, no, condition)}
      scopes = Scopes.remember_maybe(state.scopes, id, maybe, leaves)
      known(handed_out, rest, condition, %{state | scopes: scopes})
    end
  end

  defp under(%{under: under}, %{flag: false}, condition) when is_list(under),
    do: [{condition, true} | under]

  defp under(%{flag: false}, %{under: under}, condition) when is_list(under),
    do: [{condition, false} | under]

  defp under(_yes, _no, _condition), do: nil

  defp listed({:many, operands}), do: Tuple.to_list(operands)
  defp listed(operand), do: [operand]

  defp formed(operands, true), do: {:many, List.to_tuple(operands)}
  defp formed([operand], false), do: operand

  # A function sees its parameters alone.
  defp function(types, composite, state, results) do
    variables = for _ <- types, do: unique()
    outer = state.parameters
    operands = for variable <- variables, do: {:var, variable}
    state = typed(%{state | parameters: List.to_tuple(operands)}, operands, types)
    state = push(state, composite)
    {results, state} = results.(state)
    {%{steps: steps}, state} = pop(%{state | parameters: outer})
    {{variables, steps, results}, state}
  end

  # The results of a branch, and its scope.
  defp block(scopes, state, results) do
    {results, state} = results.(%{state | scopes: scopes})
    {scope, state} = pop(state)
    {{results, scope}, state}
  end

  ## Calls

  # What a hook gives, nobody reads.
  defp hook(%{expr: expr, name: name, callback: callback}, state) do
    cond do
      callback || name in state.hooks ->
        {operands, state} = operands(expr, state)
        {call, state} = numbered(Calls.hook(expr, name, callback), operands, 0, state)
        add(state, [{unique(), call}])

      true ->
        unheard(expr, state)
    end
  end

  # A hook without a function: what it would see may have hooks within.
  Code.ensure_loaded!(Tree)

  if function_exported?(Tree, :has_hooks?, 2) do
    defp unheard(expr, state) do
      if Tree.has_hooks?(expr, Map.new(state.hooks, &{&1, true})),
        do: expr |> operands(state) |> elem(1),
        else: state
    end
  else
    defp unheard(expr, state), do: expr |> operands(state) |> elem(1)
  end

  defp hook_of(expr, {:fn, callback}), do: %{expr: expr, name: nil, callback: callback}

  defp hook_of(expr, {:named, name, callback}),
    do: %{expr: expr, name: name, callback: callback}

  # An operation by Emily.Backend, amid the program.
  defp eagerly(name, arguments, node, state) do
    out = template(node, nil)
    eager = fn arguments -> apply(Emily.Backend, name, [out | arguments]) end
    call(Calls.eager(eager, arguments), Calls.tensors(arguments), node, state)
  end

  defp call(call, tensors, node, state) do
    call_operands(call, Enum.map(tensors, &Lower.value/1), node, state)
  end

  defp call_operands(call, operands, node, state) do
    {call, state} = numbered(call, operands, size(node), state)
    several(call, node, state)
  end

  defp numbered(call, operands, results, state) do
    state = %{state | calls: [call | state.calls], called: state.called + 1}
    {{:call, state.called - 1, operands, results}, state}
  end

  ## Steps

  defp step(operand, _node, state) when is_reference(operand), do: {operand, state}
  defp step({:var, _} = operand, _node, state), do: {operand, state}

  # The condition itself is the step, for those who need one; as a number it takes no memory.
  defp step({:view, condition, :u8}, %T{data: %Expr{op: op}}, state) when op in @conditions do
    variable = unique()
    {{:view, {:var, variable}, :u8}, add(state, [{variable, condition}])}
  end

  defp step(expr, node, state) do
    variable = unique()
    state = add(state, [{variable, expr}])

    case node.type do
      {:tuple, size} -> {elements(variable, size), state}
      _ -> {{:var, variable}, state}
    end
  end

  # A step of several results, even where there is one.
  defp several(expr, node, state) do
    variable = unique()
    operands = variable |> elements(size(node)) |> listed()
    {formed(operands, match?({:tuple, _}, node.type)), add(state, [{variable, expr}])}
  end

  defp elements(variable, size) do
    formed(for(index <- 0..(size - 1)//1, do: {:elem, index, {:var, variable}}), true)
  end

  defp size(%T{type: {:tuple, size}}), do: size
  defp size(%T{}), do: 1

  # What a lowering needs of the result, or of several; never the graph behind it, which a call would keep.
  defp template(%T{type: {:tuple, _}}, composite), do: Nx.to_template(composite)
  defp template(node, _composite), do: Nx.to_template(node)

  defp push(state, composite) do
    state = %{state | needs: Needs.note(state.needs, composite)}
    {certain, state} = needs(state, &Needs.certain(&1, composite))
    %{state | scopes: Scopes.push(state.scopes, composite, certain)}
  end

  defp needs(state, fun) do
    {ids, needs} = fun.(state.needs)
    {ids, %{state | needs: needs}}
  end

  defp add(state, steps), do: %{state | scopes: Scopes.add(state.scopes, steps)}

  defp pop(state) do
    {scope, scopes} = Scopes.pop(state.scopes)
    {scope, %{state | scopes: scopes}}
  end

  defp unique, do: :erlang.unique_integer()
end
