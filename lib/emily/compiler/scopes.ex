defmodule Emily.Compiler.Scopes do
  @moduledoc false
  # Where the steps of a program go. The innermost scope comes first; a branch of a condition sees the
  # scopes around it, and what two branches share belongs to the scope around both.

  alias Nx.Defn.Tree

  defstruct [:ids, values: %{}, steps: []]

  @doc "The ids of the nodes that a function's scope owns."
  def ids(composite), do: Tree.scope_ids(composite)

  @doc "The same for a branch inside of `scopes`, with the ids of the scopes around it."
  def ids(composite, [%{ids: ids} | _scopes]), do: Tree.scope_ids(composite, ids)

  def push(scopes, ids), do: [%__MODULE__{ids: ids} | scopes]

  @doc "The steps of the innermost scope, in order, and the scopes around it."
  def pop([%{steps: steps} | scopes]), do: {Enum.reverse(steps), scopes}

  def add([%{steps: before} = scope | scopes], steps),
    do: [%{scope | steps: Enum.reverse(steps, before)} | scopes]

  @doc "The value of a node that has one already."
  def fetch([], _id), do: :error

  def fetch([%{values: values} | scopes], id) do
    with :error <- Map.fetch(values, id), do: fetch(scopes, id)
  end

  def remember([%{values: values} = scope | scopes], id, value),
    do: [%{scope | values: Map.put(values, id, value)} | scopes]

  @doc "The scopes inside of the one that owns a node, and the rest."
  def split(scopes, id) do
    inside = scopes |> Enum.reverse() |> Enum.drop_while(&(not is_map_key(&1.ids, id)))

    # A node that no scope owns, a constant of several elements, goes where it is needed.
    Enum.split(scopes, max(length(inside) - 1, 0))
  end
end
