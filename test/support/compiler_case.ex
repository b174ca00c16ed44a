defmodule Emily.CompilerCase do
  @moduledoc false
  # What the tests of Emily.Compiler share: functions compiled, and evaluated by Nx.BinaryBackend.

  use ExUnit.CaseTemplate
  import Emily.BackendCase, only: [assert_equal: 3]

  using do
    quote do
      use Emily.BackendCase
      import Emily.CompilerCase
      import Emily.Observe
    end
  end

  @doc "Calls `fun` compiled by Emily."
  def compiled(fun, args, opts \\ []),
    do: Nx.Defn.jit_apply(fun, args, [compiler: Emily.Compiler] ++ opts)

  @doc "Calls `fun` as Nx.BinaryBackend does."
  def evaluated(fun, args, opts \\ []),
    do: Nx.Defn.jit_apply(fun, args, [compiler: Nx.Defn.Evaluator] ++ opts)

  @doc "The compiled function gives what Nx.BinaryBackend does, in the same containers."
  def assert_compiled(fun, args, opts \\ []) do
    [actual, expected] = for run <- [&compiled/2, &evaluated/2], do: run.(fun, args)
    assert Nx.to_template(actual) == Nx.to_template(expected)

    [leaves, expected_leaves] =
      for composite <- [actual, expected], do: Nx.Defn.Composite.flatten_list([composite])

    for {leaf, expected} <- Enum.zip(leaves, expected_leaves),
        do: assert_equal(leaf, expected, opts)

    actual
  end

  @doc "The messages in the mailbox, which is empty then."
  def mailbox do
    receive do
      message -> [message | mailbox()]
    after
      0 -> []
    end
  end
end
