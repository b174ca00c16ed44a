defmodule Emily.ConformanceTest do
  # Every operation of the table in Emily.Operations against Nx.BinaryBackend.
  # EMILY_RUNS=500 draws more cases of each.
  use Emily.BackendCase, async: true

  alias Emily.Operations

  # A matrix of equal rows has no inverse, and one in the opposite order other factors.
  @of_matrices [:triangular_solve, :solve, :determinant, :cholesky, :qr, :lu, :svd, :eigh]

  # BinaryBackend reverses the names of the first, and drops those of the last, where Nx keeps them.
  @other_names [:indexed_add, :indexed_put, :cholesky]

  # Of these, Nx or BinaryBackend refuses some names or vectorised axes: no more than in two cases of three.
  @refused [:reduce, :window_reduce, :window_sum, :window_product, :window_max, :window_min] ++
             [:pad, :conv, :clip, :eigh, :broadcast, :put_slice, :slice]

  @runs String.to_integer(System.get_env("EMILY_RUNS", "15"))
  @few max(div(@runs, 3), 1)

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

        # The first tensor is on Emily, the others stay on Nx.BinaryBackend.
        with [first, _ | _] <- tensors do
          assert_same_on([on_emily(first) | tl(tensors)], tensors, fun, opts)
        end
      end
    end

    property "#{name} of named and of vectorised axes" do
      check all({[first | rest], fun, opts} <- Operations.cases(unquote(name)), max_runs: @few) do
        unless unquote(name in @other_names),
          do: assert_same_where_known([named(first) | rest], fun, opts)

        if Keyword.get(opts, :vectorised, true) do
          other = if unquote(name in @of_matrices), do: first, else: reversed(first)
          vectorised = twice(first, other)
          assert_same_where_known([vectorised | rest], fun, opts)
          all = [vectorised | Enum.map(rest, &twice(&1, &1))]
          assert_same_where_known(all, fun, opts)
        end
      end

      assert Process.get(:refused, 0) <= unquote(if name in @refused, do: 2 * @few, else: 0)
    end

    unless name in @of_matrices do
      property "#{name} of what is broadcast" do
        check all({[first | rest], fun, opts} <- Operations.cases(unquote(name)), max_runs: @few) do
          row = row(first)
          tensors = [Nx.broadcast(row, first.shape) | rest]
          emilys = [Nx.broadcast(on_emily(row), first.shape) | on_emily(rest)]
          assert_same_on(emilys, tensors, fun, opts)
        end
      end
    end
  end

  defp named(x), do: Nx.rename(x, Enum.take([:a, :b, :c, :d, :e], Nx.rank(x)))

  defp reversed(%{shape: {}} = x), do: x
  defp reversed(x), do: Nx.reverse(x)

  defp twice(x, other), do: Nx.vectorize(Nx.stack([x, other]), :vectorised)

  defp row(%{shape: {}} = x), do: x
  defp row(x), do: Nx.slice_along_axis(x, 0, 1)

  # Where BinaryBackend or Nx refuses the names or the axes there is nothing to compare with: that is counted.
  defp assert_same_where_known(tensors, fun, opts) do
    try do
      fun.(tensors)
    rescue
      _ -> Process.put(:refused, Process.get(:refused, 0) + 1)
    else
      _ -> assert_same(tensors, fun, opts)
    end
  end
end
