defmodule Emily.Compiler.Needs do
  @moduledoc false
  # Which nodes wait, and which of them a run needs whatever branches it takes.
  #
  # An operation of MLX that nobody reads costs its building alone, so it may stand before the conditions
  # around it. A loop, a condition or a call runs when it is reached, so it, and what depends on it, must
  # stand in the branches that need it.

  alias Emily.Bounds
  alias Nx.Defn.{Composite, Expr, Tree}
  alias Nx.Tensor, as: T

  # The last two call the caller's function.
  @waiting [:while, :cond, :token, :hook, :io_call] ++ [:runtime_call, :reduce, :window_reduce]

  # `waits` by the ids of nodes, and how many do; `chosen` what all branches of a condition need, from a
  # clause on, or, where each node is to stand once, what several need.
  defstruct waits: %{}, count: 0, chosen: %{}, once: false

  @doc "Notes which nodes of a function's scope wait, themselves or for what they depend on."
  def note(needs, composite), do: elem(any(composite, {false, needs}), 1)

  @doc "Whether a noted node waits."
  def waits?(needs, id), do: Map.get(needs.waits, id, false)

  defp any(composite, acc), do: Composite.reduce(composite, acc, &any_of/2)

  defp any_of(%T{data: %Expr{op: op}}, acc) when op in [:constant, :tensor, :parameter], do: acc

  defp any_of(%T{data: %Expr{id: id} = expr} = node, {before, needs}) do
    {waits, needs} =
      case needs.waits do
        %{^id => waits} ->
          {waits, needs}

        %{} ->
          {waits, needs} = own(expr, needs)
          noted = fn arg, acc -> {arg, any_of(arg, acc)} end
          {_, {waits, needs}} = Tree.apply_args(node, :scope, {waits, needs}, noted)
          count = if waits, do: needs.count + 1, else: needs.count
          {waits, %{needs | waits: Map.put(needs.waits, id, waits), count: count}}
      end

    {before or waits, needs}
  end

  defp own(%Expr{op: :block, args: [block, _args, default, _callback]}, needs),
    do: any(default, {Bounds.checked?(block), needs})

  defp own(%Expr{op: :optional, args: [_call, default, _callback]}, needs),
    do: any(default, {false, needs})

  defp own(%Expr{op: op}, needs), do: {op in @waiting or Bounds.checked?(op), needs}

  @doc "The waiting nodes that a composite needs in any case, by their ids."
  def certain(needs, composite), do: Composite.reduce(composite, {%{}, needs}, &need/2)

  @doc "The same for the clauses of a condition from one on, whose predicate is asked."
  def certain(needs, clauses, last, id) do
    key = {id, length(clauses)}

    case {needs.chosen, clauses} do
      {%{^key => ids}, _} -> {ids, needs}
      {_, []} -> needs |> certain(last) |> keep(key)
      {_, [{predicate, _} | _]} -> needs |> asked(predicate, clauses, last, id) |> keep(key)
    end
  end

  defp keep({ids, needs}, key), do: {ids, put_in(needs.chosen[key], ids)}

  defp asked(needs, predicate, [{_, body} | clauses], last, id) do
    {ids, needs} = certain(needs, predicate)

    cond do
      needs.once ->
        yes = all(needs, {body, [], {}})
        {Map.merge(ids, Map.take(yes, Map.keys(all(needs, {{}, clauses, last})))), needs}

      # What a later predicate runs comes before what the branches run, where they come after it.
      Enum.any?(clauses, fn {%T{data: %Expr{id: id}}, _} -> waits?(needs, id) end) ->
        {ids, needs}

      true ->
        {yes, needs} = certain(needs, body)
        {no, needs} = certain(needs, clauses, last, id)
        {Map.merge(ids, Map.take(yes, Map.keys(no))), needs}
    end
  end

  defp need(%T{data: %Expr{id: id, op: op, args: args}} = node, {ids, needs}) do
    cond do
      op == :metadata ->
        Composite.reduce(hd(args), {ids, needs}, &need/2)

      is_map_key(ids, id) or not waits?(needs, id) ->
        {ids, needs}

      op == :cond ->
        [clauses, last] = args
        {chosen, needs} = certain(needs, clauses, last, id)
        {ids |> Map.merge(chosen) |> Map.put(id, node), needs}

      true ->
        needed = fn arg, acc -> {arg, need(arg, acc)} end
        {_, acc} = Tree.apply_args(node, :scope, {Map.put(ids, id, node), needs}, needed)
        acc
    end
  end

  @doc """
  The first waiting nodes on each way into the branches of a condition of which `sought`, a function of ids, says
  `:found`. The way ends where it says `:known`.
  """
  def within(needs, branches, sought) do
    {found, _seen} = search(branches, {[], %{}}, &seek(&1, &2, needs, sought))
    Enum.reverse(found)
  end

  defp all(needs, branches) do
    {_found, seen} = search(branches, {[], %{}}, &seek(&1, &2, needs, fn _id -> :on end))
    seen
  end

  defp search({body, clauses, last}, acc, fun) do
    acc = Composite.reduce(body, acc, fun)

    acc =
      for {predicate, body} <- clauses, composite <- [predicate, body], reduce: acc do
        acc -> Composite.reduce(composite, acc, fun)
      end

    Composite.reduce(last, acc, fun)
  end

  defp seek(%T{data: %Expr{id: id}} = node, {found, seen}, needs, sought) do
    if is_map_key(seen, id) or not waits?(needs, id) do
      {found, seen}
    else
      seen = Map.put(seen, id, node)

      case sought.(id) do
        :found ->
          {[node | found], seen}

        :known ->
          {found, seen}

        :on ->
          further = fn arg, acc -> {arg, seek(arg, acc, needs, sought)} end
          {_, acc} = Tree.apply_args(node, :scope, {found, seen}, further)
          acc
      end
    end
  end

  @doc "What the operands of a node are templates of, or nil where that is not known."
  # What hooks give, nobody reads.
  def leaves(%T{data: %Expr{op: :token}}), do: []

  def leaves(%T{type: {:tuple, _}, data: %Expr{op: op, args: args}}) do
    case {op, args} do
      {:while, [initial | _]} -> flat(initial)
      {:cond, [_clauses, last]} -> flat(last)
      {:block, [_, _, default, _]} -> flat(default)
      {:optional, [_, default, _]} -> flat(default)
      {hook, [seen | _]} when hook in [:hook, :io_call] -> flat(seen)
      {:runtime_call, [_, _, out | _]} -> flat(out)
      _ -> nil
    end
  end

  def leaves(%T{} = node), do: [Nx.to_template(node)]

  defp flat(composite),
    do: for(leaf <- Composite.flatten_list([composite]), do: Nx.to_template(leaf))
end
