defmodule Emily.Lower.Effects do
  @moduledoc false
  # What a function does beside its result: hooks, and functions of the user's. A function with effects is none
  # that something else may stand for.

  alias Nx.Defn.{Composite, Expr, Tree}
  alias Nx.Tensor, as: T

  @effects [:token, :attach_token, :hook, :io_call, :runtime_call]

  @doc "Whether an expression has effects, in any of its scopes."
  @spec any?(Nx.Container.t()) :: boolean
  def any?(composite) do
    Composite.reduce(composite, %{}, &visit/2)
    false
  catch
    :effect -> true
  end

  defp visit(%T{data: %Expr{op: op}}, _seen) when op in @effects, do: throw(:effect)

  defp visit(%T{data: %Expr{id: id}} = node, seen) when not is_map_key(seen, id) do
    {_, seen} = Tree.apply_args(node, Map.put(seen, id, true), &{&1, visit(&1, &2)})
    seen
  end

  defp visit(_node, seen), do: seen

  @doc """
  Whether a function that `Nx.Defn.Evaluator` made of an expression has effects. It closes over the nodes,
  which no longer refer to each other.
  """
  @spec of_evaluator?(function) :: boolean
  def of_evaluator?(fun) do
    {:module, module} = Function.info(fun, :module)
    {:env, env} = Function.info(fun, :env)
    module in [Nx.Defn.Evaluator, Emily.Compiler.Calls] and among?(env)
  end

  defp among?([head | tail]), do: among?(head) or among?(tail)
  defp among?(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> among?()
  defp among?(%Expr{op: op, args: args}), do: op in @effects or among?(args)
  defp among?(%{} = map), do: map |> :maps.to_list() |> among?()
  defp among?(fun) when is_function(fun), do: of_evaluator?(fun)
  defp among?(_other), do: false
end
