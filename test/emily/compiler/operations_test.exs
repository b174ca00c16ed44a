defmodule Emily.Compiler.OperationsTest do
  # Every operation of the table in Emily.Operations compiled, bit for bit as the eager call.
  # EMILY_RUNS=500 draws more cases of each.
  use Emily.BackendCase, async: true

  alias Emily.Operations

  @runs String.to_integer(System.get_env("EMILY_RUNS", "10"))

  for name <- Operations.names() do
    property "#{name}" do
      check all({tensors, fun, opts} <- Operations.cases(unquote(name)), max_runs: @runs) do
        tensors = Enum.map(tensors, &on_emily/1)
        mode = if opts[:fallback], do: :silent, else: :raise
        assert_same_bits(tensors, fun, mode)
      end
    end
  end

  defp assert_same_bits(tensors, fun, mode) do
    compiled =
      Nx.Defn.jit(fn tuple -> tuple |> Tuple.to_list() |> fun.() end,
        compiler: Emily.Compiler,
        cache: false
      )

    {eager, actual} =
      Emily.Fallback.with_mode(mode, fn ->
        eager = Nx.with_default_backend(Emily.Backend, fn -> fun.(tensors) end)
        {eager, compiled.(List.to_tuple(tensors))}
      end)

    assert bits(actual) == bits(eager)
  end

  # Shapes, types, names and bytes.
  defp bits(result) do
    for tensor <- Nx.Defn.Composite.flatten_list([result]) do
      assert tensor.data.__struct__ == Emily.Backend
      {Nx.to_template(tensor), Nx.to_binary(tensor)}
    end
  end
end
