Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.NumPyTest do
  # Every operation in its main configurations against NumPy's numbers, in each type it takes.
  use NativeCase, async: true

  @fixtures Path.expand("../fixtures/numpy/operations.terms", __DIR__)
  @external_resource @fixtures
  {:ok, cases} = :file.consult(@fixtures)

  for {{name, types, ulps, expression, results}, i} <- Enum.with_index(cases) do
    @tag fixture: {types, ulps, expression, results}
    if name =~ ~r/f64/, do: @tag(:f64)
    # MLX (0.32.4) has these for no integers of 64 bits on a GPU.
    if name =~ ~r/^scatter_(max|min|prod)/ and :s64 in types, do: @tag(:cpu)

    test "#{i}: #{name} in #{Enum.join(types, " ")}", %{
      fixture: {types, ulps, expression, results}
    } do
      for type <- types do
        arrays = Native.run([given(expression, type)], device(type))

        for {array, {:tensor, dtype, shape, numbers}} <- Enum.zip(arrays, results) do
          dtype = if dtype == :t, do: type, else: dtype
          assert {type, Native.dtype(array), Native.shape(array)} == {type, dtype, shape}
          assert_near(numbers(array), numbers, dtype, ulps)
        end

        assert length(arrays) == length(results)
      end
    end
  end

  test "every operation has a case" do
    {:ok, cases} = :file.consult(@fixtures)

    covered =
      cases |> Enum.flat_map(fn {_, _, _, expression, _} -> atoms(expression) end) |> MapSet.new()

    # Results that are right up to signs: see the tests of linear algebra. Packed numbers have tests of their own.
    elsewhere =
      MapSet.new(
        ~w(lu lu_factor quantize dequantize quantized_matmul gather_qmm dequantize_blocks blocks_matmul)a
      )

    named = MapSet.new(operations())
    assert MapSet.size(named) > 130
    assert MapSet.equal?(MapSet.difference(named, covered), elsewhere)
  end

  # A case's expression in one of its types.
  defp given({:tensor, dtype, shape, numbers}, type) do
    dtype = if dtype == :t, do: type, else: dtype
    array(numbers, shape, dtype, device(type))
  end

  defp given(:t, type), do: type
  defp given(list, type) when is_list(list), do: Enum.map(list, &given(&1, type))

  defp given(tuple, type) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> given(type) |> List.to_tuple()

  defp given(plain, _type), do: plain

  defp atoms({:tensor, _, _, _}), do: []
  defp atoms(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> atoms()
  defp atoms(list) when is_list(list), do: Enum.flat_map(list, &atoms/1)
  defp atoms(atom) when is_atom(atom), do: [atom]
  defp atoms(_plain), do: []
end
