defmodule Emily.Compiler.Builder do
  @moduledoc false
  # An expression of Nx.Defn as a function of `Emily.Native.Program`.
  #
  # Each node becomes a step whose meaning is `Emily.Lower`'s. What needs Elixir, a hook or a function
  # of the caller's, becomes a call; `calls` are what answers them.

  alias Emily.Compiler.{Calls, Scopes}
  alias Emily.{Bounds, Fallback, Lower}
  alias Nx.Defn.{Composite, Expr, Tree}
  alias Nx.Tensor, as: T

  @enforce_keys [:device, :hooks, :fallback]
  defstruct [:device, :hooks, :fallback, parameters: :inputs, scopes: [], used: %{}, calls: []]

  @typedoc """
  The function of the program, the numbers of the parameters that it takes, in their order, and its
  calls by their index; or, for want of a program, the first node of a type that MLX lacks, whose tensors
  no register can hold.
  """
  @type built :: {Emily.Native.Program.fun_term(), [non_neg_integer], [Calls.t()]}

  @doc """
  Builds the program of a composite of expressions.

  ## Options

    * `:device` - where the program is to run: `:cpu` or `:gpu`
    * `:hooks` - the names of the hooks that have functions of the caller's
    * `:fallback` - `:raise` or `:evaluate`: what to do about an operation that MLX cannot do
  """
  @spec build(Nx.Container.t(), keyword) :: built | {:held, Nx.Tensor.t()}
  def build(expr, opts) do
    state = push(struct!(__MODULE__, opts), Scopes.ids(expr))
    {results, state} = operands(expr, state)
    {steps, state} = pop(state)
    {inputs, variables} = state.used |> Enum.sort() |> Enum.unzip()
    {{variables, steps, results}, inputs, Enum.reverse(state.calls)}
  catch
    {__MODULE__, node} -> {:held, node}
  end

  ## Operands

  # A node's value is an operand, or `{:many, operands}`.
  defp value(%T{type: {kind, _} = type} = node, state) when kind != :tuple do
    if Lower.type?(type), do: value_of(node, state), else: throw({__MODULE__, node})
  end

  defp value(node, state), do: value_of(node, state)

  defp value_of(%T{data: %Expr{op: :metadata, args: [expr, _metadata]}}, state),
    do: many(expr, state)

  defp value_of(%T{data: %Expr{op: :constant, args: [number]}, shape: {}, type: type}, state) do
    {Emily.Expr.scalar(number, Lower.dtype(type)), state}
  end

  defp value_of(%T{data: %Expr{op: :tensor, args: [tensor]}}, state) do
    {Emily.Backend.operand(tensor, state.device), state}
  end

  defp value_of(%T{data: %Expr{id: id}} = node, state) do
    case Scopes.fetch(state.scopes, id) do
      {:ok, value} ->
        {value, state}

      :error ->
        {inner, outer} = Scopes.split(state.scopes, id)
        {value, state} = emit(node, %{state | scopes: outer})
        {value, %{state | scopes: inner ++ Scopes.remember(state.scopes, id, value)}}
    end
  end

  # The value of a tensor, or of a tuple of them.
  defp many(%T{} = expr, state), do: value(expr, state)

  defp many(composite, state) do
    {operands, state} = operands(composite, state)
    {{:many, operands}, state}
  end

  # The leaves of a composite, each one operand.
  defp operands(composite, state) do
    [composite] |> Composite.flatten_list() |> Enum.map_reduce(state, &value/2)
  end

  # A tensor with its operand, as lowerings take it.
  defp argument(%T{data: %Expr{op: :fun}} = fun, state), do: {fun, state}

  defp argument(%T{} = node, state) do
    {operand, state} = value(node, state)
    {Emily.Backend.with_operand(node, operand, state.device), state}
  end

  defp argument(other, state), do: {other, state}

  defp predicate(%T{type: type} = node, state) do
    {operand, state} = value(node, state)
    {Emily.Lower.Types.truthy(operand, type), state}
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
    {Enum.fetch!(state.parameters, index), state}
  end

  defp emit(%T{data: %Expr{op: :elem, args: [tuple, index]}}, state) do
    {{:many, operands}, state} = value(tuple, state)
    {Enum.fetch!(operands, index), state}
  end

  defp emit(%T{data: %Expr{op: :cond, args: [clauses, last]}} = node, state) do
    choose(clauses, last, node, state)
  end

  defp emit(%T{data: %Expr{op: :while, args: [initial, _arg, condition, body]}} = node, state) do
    {initial, state} = operands(initial, state)
    size = length(initial)

    {condition, state} =
      function(size, condition, state, fn state ->
        {operand, state} = predicate(condition, state)
        {[operand], state}
      end)

    {body, state} = function(size, body, state, &operands(body, &1))
    several({:while, initial, condition, body}, node, state)
  end

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
    {{:many, []}, state}
  end

  defp emit(%T{data: %Expr{op: :attach_token, args: [token, expr]}}, state) do
    {_, state} = value(token, state)
    value(expr, state)
  end

  # Nx 0.13.
  defp emit(%T{data: %Expr{op: :hook, args: [expr, callback, _template, _ref]}}, state) do
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
    {arguments, state} = Tree.apply_args(node, state, &argument/2)
    out = template(node, nil)

    if Bounds.checked?(name),
      do: eagerly(name, arguments, node, state),
      else: lower(name, node, arguments, nil, state, fn -> Lower.op(name, out, arguments) end)
  end

  defp lower(name, node, arguments, default, state, lowering) do
    refuse_f64(node, state.device)

    case described(name, arguments, lowering) do
      :default ->
        inline(default, arguments, state)

      {:fallback, reason} ->
        if state.fallback == :raise, do: Fallback.refuse(name, arguments, reason)
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
    tensors = Enum.filter(arguments, &is_struct(&1, T))
    state = push(%{state | parameters: Enum.map(tensors, &Lower.value/1)}, Scopes.ids(default))
    {value, state} = many(default, state)
    {steps, state} = pop(%{state | parameters: outer})
    {value, add(state, steps)}
  end

  ## Conditions

  defp choose([{condition, body} | clauses], last, node, state) do
    {condition, state} = predicate(condition, state)
    {yes, state} = branch(body, state, &operands(body, &1))

    {no, state} =
      case clauses do
        [] ->
          branch(last, state, &operands(last, &1))

        [{next, _} | _] ->
          branch(next, state, fn state ->
            {value, state} = choose(clauses, last, node, state)
            {List.wrap(with({:many, operands} <- value, do: operands)), state}
          end)
      end

    several({:cond, condition, yes, no}, node, state)
  end

  # A branch sees the values around it.
  defp branch(composite, state, results) do
    block([], Scopes.ids(composite, state.scopes), state, results)
  end

  # A function sees its parameters alone.
  defp function(arity, composite, state, results) do
    variables = for _ <- 1..arity//1, do: unique()
    outer = state.parameters
    state = %{state | parameters: Enum.map(variables, &{:var, &1})}
    {function, state} = block(variables, Scopes.ids(composite), state, results)
    {function, %{state | parameters: outer}}
  end

  defp block(variables, ids, state, results) do
    {results, state} = results.(push(state, ids))
    {steps, state} = pop(state)
    {{variables, steps, results}, state}
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
    {{:call, length(state.calls), operands, results}, %{state | calls: [call | state.calls]}}
  end

  ## Steps

  defp step(operand, _node, state) when is_reference(operand), do: {operand, state}
  defp step({:var, _} = operand, _node, state), do: {operand, state}

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
    {:many, operands} = many = elements(variable, size(node))
    value = if match?({:tuple, _}, node.type), do: many, else: hd(operands)
    {value, add(state, [{variable, expr}])}
  end

  defp elements(variable, size) do
    {:many, for(index <- 0..(size - 1)//1, do: {:elem, index, {:var, variable}})}
  end

  defp size(%T{type: {:tuple, size}}), do: size
  defp size(%T{}), do: 1

  # What a lowering needs of the result, or of several; never the graph behind it, which a call would keep.
  defp template(%T{type: {:tuple, _}}, composite), do: Nx.to_template(composite)
  defp template(node, _composite), do: Nx.to_template(node)

  defp push(state, ids), do: %{state | scopes: Scopes.push(state.scopes, ids)}
  defp add(state, steps), do: %{state | scopes: Scopes.add(state.scopes, steps)}

  defp pop(state) do
    {steps, scopes} = Scopes.pop(state.scopes)
    {steps, %{state | scopes: scopes}}
  end

  defp unique, do: :erlang.unique_integer()
end
