defmodule Emily.Fast.AgreementTest do
  # The kernels against the composed forms on a real Nx.BinaryBackend, at sizes of real models'
  # heads, with random numbers.
  use Emily.FastCase, async: true

  alias Emily.Fast

  # What both sides compute from the same numbers, in which each is near to the exact result; so
  # they are near to each other within the sum of both.
  defp agree(type, shapes, tolerance, fun) do
    :rand.seed(:exsss, 7)
    Nx.default_backend(Nx.BinaryBackend)

    inputs =
      for shape <- shapes do
        numbers = for _ <- 1..Tuple.product(shape)//1, do: :rand.normal()
        numbers |> Nx.tensor(type: type) |> Nx.reshape(shape)
      end

    expected = fun.(inputs)
    assert_on(Nx.BinaryBackend, expected)

    Nx.default_backend(Emily.Backend)
    actual = inputs |> Enum.map(&Nx.backend_copy(&1, Emily.Backend)) |> fun.()
    assert_on(Emily.Backend, actual)
    assert actual.type == expected.type
    assert actual.shape == expected.shape
    assert_near(actual, expected, tolerance)
  end

  for type <- Emily.FastCase.types() do
    describe Nx.Type.to_string(type) do
      @describetag type: type

      test "norms of 384", %{type: type} do
        agree(type, [{2, 3, 384}, {384}], 2 * tolerance(type), fn [x, w] ->
          Fast.rms_norm(x, w)
        end)

        agree(type, [{2, 3, 384}, {384}, {384}], 2 * tolerance(type), fn [x, w, b] ->
          Fast.layer_norm(x, w, b)
        end)
      end

      test "rotations far into a context", %{type: type} do
        for offset <- [0, 1000],
            opts <- [[dims: 64], [dims: 32], [dims: 64, traditional: true]] do
          # Each side rounds an angle of up to `offset` to an ulp or two of f32.
          tolerance = 2 * tolerance(type) + 3.0e-7 * offset
          agree(type, [{1, 2, 16, 64}], tolerance, fn [x] -> Fast.rope(x, offset, opts) end)
        end
      end

      test "attention of grouped heads of 64", %{type: type} do
        shapes = [{1, 6, 8, 64}, {1, 2, 24, 64}, {1, 2, 24, 64}]

        # In 16 bits MLX rounds a score, of up to 4 or so, before its exponential.
        tolerance = if type == {:f, 32}, do: 2 * tolerance(type), else: 4 * tolerance(type)

        for opts <- [[], [causal: true], [scale: 0.1]] do
          agree(type, shapes, tolerance, fn [q, k, v] ->
            Fast.scaled_dot_product_attention(q, k, v, opts)
          end)
        end

        agree(type, shapes ++ [{6}], tolerance, fn [q, k, v, sinks] ->
          Fast.scaled_dot_product_attention(q, k, v, causal: true, sinks: sinks)
        end)

        agree(type, shapes ++ [{1, 6, 8, 24}, {1, 6, 1, 1}], tolerance, fn [q, k, v, mask, sinks] ->
          Fast.scaled_dot_product_attention_with_mask(q, k, v, mask, sinks: sinks)
        end)
      end
    end
  end

  test "f64 is taken, though MLX computes norms and rotations in f32" do
    agree({:f, 64}, [{2, 64}, {64}], 5.0e-6, fn [x, w] -> Fast.rms_norm(x, w) end)
    agree({:f, 64}, [{2, 64}, {64}, {64}], 5.0e-6, fn [x, w, b] -> Fast.layer_norm(x, w, b) end)
    agree({:f, 64}, [{1, 2, 4, 8}], 5.0e-6, fn [x] -> Fast.rope(x, 3, dims: 8) end)

    agree({:f, 64}, [{1, 2, 4, 8}, {1, 2, 4, 8}, {4, 4}], 5.0e-6, fn [q, k, mask] ->
      Fast.scaled_dot_product_attention_with_mask(q, k, k, mask)
    end)
  end
end
