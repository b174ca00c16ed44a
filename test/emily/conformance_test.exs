defmodule Emily.ConformanceTest do
  # Every operation of the table in Emily.Operations against Nx.BinaryBackend.
  # EMILY_RUNS=500 draws more cases of each.
  use Emily.BackendCase, async: true

  alias Emily.Operations

  @runs String.to_integer(System.get_env("EMILY_RUNS", "15"))

  # What makes, moves, reads or shows tensors; tested in backend_test.exs and shape_test.exs.
  @others [:init, :constant, :from_binary, :eye, :iota, :inspect, :to_batched, :to_binary] ++
            [:backend_copy, :backend_deallocate, :backend_transfer, :from_pointer, :to_pointer] ++
            [:block, :optional]

  test "the table has every callback of Nx.Backend" do
    callbacks = Nx.Backend.behaviour_info(:callbacks) |> Keyword.keys() |> Enum.uniq()
    assert (callbacks -- @others) -- Operations.names() == []
  end

  test "the table has every block of Nx" do
    blocks =
      for module <- Application.spec(:nx, :modules),
          ["Nx", "Block" | _] = parts <- [Module.split(module)],
          Code.ensure_loaded?(module) and function_exported?(module, :__struct__, 0) do
        case List.last(parts) do
          capitals when capitals in ~w(FFT2 IFFT2 RFFT IRFFT QR SVD LU) ->
            String.downcase(capitals)

          name ->
            Macro.underscore(name)
        end
      end

    assert blocks -- Enum.map(Operations.names(), &to_string/1) == []
  end

  for name <- Operations.names() do
    property "#{name}" do
      check all({tensors, fun, opts} <- Operations.cases(unquote(name)), max_runs: @runs) do
        assert_same(tensors, fun, opts)
        if match?([_, _ | _], tensors), do: assert_same_of_two_backends(tensors, fun, opts)
      end
    end
  end

  # The first tensor is on Emily, the others stay on Nx.BinaryBackend.
  defp assert_same_of_two_backends([first | rest] = tensors, fun, opts) do
    expected = expected(tensors, fun, opts)
    mode = if opts[:fallback], do: :silent, else: :raise
    actual = Emily.Fallback.with_mode(mode, fn -> fun.([on_emily(first) | rest]) end)
    assert_equal(actual, expected, opts)
  end
end
