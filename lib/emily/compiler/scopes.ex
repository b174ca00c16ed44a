defmodule Emily.Compiler.Scopes do
  @moduledoc false
  # Where the steps of a program go. The innermost scope comes first; a branch of a condition sees the
  # scopes around it, and what two branches share belongs to the scope around both.
  #
  # What waits (`Emily.Compiler.Needs`) goes where a run certainly needs it. Where only branches of several
  # conditions do, the first that is taken computes it and hands it out of its condition, with a flag that
  # says whether it was: `maybe`. `under` are the predicates and their values that make the flag true, where
  # that is known.

  alias Nx.Defn.Tree

  defstruct [:ids, :certain, :pending, :under, barrier: false] ++
              [values: %{}, maybe: %{}, lent: %{}, steps: []]

  # The ids of a scope are those of its nodes and of the scopes around it, so that the one that owns a node is
  # found where the scope around it does not have the id. No value lies further out.

  @doc "A function's scope."
  def push([], composite, certain),
    do: [scope(ids(composite, certain, %{}), certain, %{}, nil)]

  def push([%{ids: ids} | _] = scopes, composite, certain),
    do: [scope(ids(composite, certain, ids), certain, %{}, nil) | scopes]

  @doc "A branch's scope inside of `scopes`, where `under`, a predicate and its value, holds."
  def push_branch([%{ids: ids, pending: pending} | _] = scopes, composite, certain, under),
    do: [scope(ids(composite, certain, ids), certain, pending, under) | scopes]

  @doc "A branch's scope for a node that one around it owns, with what it depends on."
  def push_again([%{ids: ids} | _] = scopes, certain, under),
    do: [%{scope(ids, certain, %{}, under) | barrier: true} | scopes]

  # `pending` are what this scope and those around certainly need, and may have by now.
  defp scope(ids, certain, pending, under),
    do: %__MODULE__{
      ids: ids,
      certain: certain,
      pending: Map.merge(pending, certain),
      under: under
    }

  # What is certain does not belong to the one condition that reads it.
  defp ids(composite, certain, ids),
    do: Tree.scope_ids(List.to_tuple([composite | Map.values(certain)]), ids)

  @doc "The innermost scope, and the scopes around it."
  def pop([%{steps: steps} = scope | scopes]),
    do: {%{scope | steps: Enum.reverse(steps)}, scopes}

  def add([%{steps: before} = scope | scopes], steps),
    do: [%{scope | steps: Enum.reverse(steps, before)} | scopes]

  @doc "The value of a node that has one already."
  def fetch(scopes, id) do
    find(scopes, id, :error, fn scope ->
      case scope do
        %{values: %{^id => value}} ->
          {:ok, value}

        %{maybe: %{^id => %{under: [_ | _] = under, value: value}}} ->
          if holds?(scopes, under), do: {:ok, value}

        _ ->
          nil
      end
    end)
  end

  # What `fun` gives for a scope, from the innermost to the one that owns the node.
  defp find([], _id, default, _fun), do: default

  defp find([scope | scopes], id, default, fun) do
    found = fun.(scope)

    cond do
      found != nil -> found
      owner?(scope, scopes, id) -> default
      true -> find(scopes, id, default, fun)
    end
  end

  defp owner?(%{ids: ids}, _scopes, id) when not is_map_key(ids, id), do: false
  defp owner?(_scope, [%{ids: ids} | _], id), do: not is_map_key(ids, id)
  defp owner?(_scope, [], _id), do: true

  defp holds?(scopes, under),
    do: Enum.all?(under, fn one -> Enum.any?(scopes, &(&1.under == one)) end)

  @doc "The value that a node may have, with the flag that tells."
  def maybe(scopes, id), do: find(scopes, id, nil, & &1.maybe[id])

  @doc "The scopes inside of the one where a node goes, and the rest."
  def split(scopes, id, waits?) do
    # A node that no scope owns, a constant of several elements, goes where it is needed.
    inside = owner(scopes, id, 0) || 0
    Enum.split(scopes, if(waits?, do: needed(scopes, id, 0, 0, inside), else: inside))
  end

  defp owner([], _id, _at), do: nil

  defp owner([scope | scopes], id, at),
    do: if(owner?(scope, scopes, id), do: at, else: owner(scopes, id, at + 1))

  @doc "Whether a node is `:known`, or to be `:found` since a scope around certainly needs it, or neither: `:on`."
  def standing([%{pending: pending} | _] = scopes, id) do
    cond do
      fetch(scopes, id) != :error -> :known
      is_map_key(pending, id) -> :found
      true -> :on
    end
  end

  # The outermost of the scopes up to the owner that certainly needs the node.
  defp needed([scope | scopes], id, at, found, owner) do
    found = if is_map_key(scope.certain, id), do: at, else: found
    if scope.barrier or at == owner, do: found, else: needed(scopes, id, at + 1, found, owner)
  end

  @doc "Notes the value of a node in the innermost scope; `leaves` are what its operands are."
  def remember([scope | scopes], id, value, leaves) do
    pending = Map.delete(scope.pending, id)
    scope = %{scope | values: Map.put(scope.values, id, value), pending: pending}
    [lend(scope, scopes, id, leaves) | scopes]
  end

  @doc "The same for a value that a node may have."
  def remember_maybe([scope | scopes], id, maybe, leaves) do
    scope = %{scope | maybe: Map.put(scope.maybe, id, maybe)}
    [lend(scope, scopes, id, leaves) | scopes]
  end

  # What a scope further out owns.
  defp lend(scope, [%{ids: %{} = ids} | _], id, leaves)
       when is_map_key(ids, id) and leaves != nil,
       do: put_in(scope.lent[id], leaves)

  defp lend(scope, _scopes, _id, _leaves), do: scope

  @doc """
  What two branches, whose scopes lay inside of `scopes`, hand out: the id of each node, what its
  operands are, and in each branch the value, the flag and what it is known under.
  """
  def handed_out(scopes, yes, no) do
    lent = Map.merge(yes.lent, no.lent)

    for {id, leaves} <- Enum.sort(lent) do
      {id, leaves, handed([yes | scopes], id), handed([no | scopes], id)}
    end
  end

  defp handed(scopes, id) do
    case fetch(scopes, id) do
      {:ok, value} -> %{value: value, flag: true, under: []}
      :error -> maybe(scopes, id) || %{value: nil, flag: false, under: nil}
    end
  end
end
