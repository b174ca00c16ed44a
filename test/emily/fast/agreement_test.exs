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

      test "norms of rows of any length, from anywhere in memory", %{type: type} do
        for columns <- [1, 3, 8, 100, 128, 1024, 1025] do
          agree(type, [{2, 3, columns}, {columns}], 2 * tolerance(type), fn [x, w] ->
            Fast.rms_norm(x, w)
          end)

          agree(type, [{4, columns}, {columns + 1}], 2 * tolerance(type), fn [x, w] ->
            Fast.rms_norm(x[1..2], w[1..columns])
          end)
        end
      end

      test "gates of any number of elements, from anywhere in memory", %{type: type} do
        for count <- [1, 7, 8, 64, 65] do
          agree(type, [{count + 1}, {count + 1}], 2 * tolerance(type), fn [gate, up] ->
            Nx.add(
              Fast.swiglu(gate[0..(count - 1)], up[1..count]),
              Fast.gelu(up[1..count])
            )
          end)
        end
      end

      test "activations and gates", %{type: type} do
        for opts <- [[], [approximation: :tanh]] do
          agree(type, [{7, 65}], 2 * tolerance(type), fn [x] -> Fast.gelu(x, opts) end)

          agree(type, [{7, 65}, {7, 65}], 2 * tolerance(type), fn [gate, up] ->
            Fast.geglu(gate, up, opts)
          end)
        end

        agree(type, [{7, 65}, {7, 65}], 2 * tolerance(type), fn [gate, up] ->
          Fast.swiglu(gate, up)
        end)

        # Neither lies in a row.
        agree(type, [{7, 65}, {65, 7}], 2 * tolerance(type), fn [gate, up] ->
          Fast.swiglu(Nx.multiply(Nx.transpose(gate), 4), up)
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

  # By the C library, as Erlang has it.
  test "activations and gates against their formulas" do
    numbers = for i <- -400..400, do: i / 25
    {x, up} = {Nx.tensor(numbers, type: :f32), Nx.tensor(Enum.reverse(numbers), type: :f32)}
    sigmoid = &(1 / (1 + :math.exp(-&1)))
    gelu = &(0.5 * &1 * :math.erfc(-&1 * :math.sqrt(0.5)))
    tanh = &(&1 * sigmoid.(2 * :math.sqrt(2 / :math.pi()) * (&1 + 0.044715 * &1 * &1 * &1)))
    times = fn f -> Enum.zip_with(Nx.to_list(x), Nx.to_list(up), &(f.(&1) * &2)) end

    for backend <- backends() do
      [x, up] = for t <- [x, up], do: Nx.backend_copy(t, backend)
      numbers = Nx.to_list(x)
      assert_near(Fast.gelu(x), Enum.map(numbers, gelu), 3.0e-7)
      assert_near(Fast.gelu(x, approximation: :tanh), Enum.map(numbers, tanh), 3.0e-7)
      assert_near(Fast.swiglu(x, up), times.(&(&1 * sigmoid.(&1))), 3.0e-6)
      assert_near(Fast.geglu(x, up), times.(gelu), 3.0e-6)
      assert_near(Fast.geglu(x, up, approximation: :tanh), times.(tanh), 3.0e-6)
    end
  end

  @tag :f64
  test "f64 is taken, though MLX computes norms and rotations in f32" do
    agree({:f, 64}, [{2, 64}, {64}], 5.0e-6, fn [x, w] -> Fast.rms_norm(x, w) end)
    agree({:f, 64}, [{2, 64}, {64}, {64}], 5.0e-6, fn [x, w, b] -> Fast.layer_norm(x, w, b) end)
    agree({:f, 64}, [{1, 2, 4, 8}], 5.0e-6, fn [x] -> Fast.rope(x, 3, dims: 8) end)
    agree({:f, 64}, [{64}], 1.0e-14, fn [x] -> Fast.gelu(x) end)
    agree({:f, 64}, [{64}], 1.0e-14, fn [x] -> Fast.gelu(x, approximation: :tanh) end)
    agree({:f, 64}, [{64}, {64}], 1.0e-14, fn [gate, up] -> Fast.swiglu(gate, up) end)

    agree({:f, 64}, [{1, 2, 4, 8}, {1, 2, 4, 8}, {4, 4}], 5.0e-6, fn [q, k, mask] ->
      Fast.scaled_dot_product_attention_with_mask(q, k, k, mask)
    end)
  end
end
