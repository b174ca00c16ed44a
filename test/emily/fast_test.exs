defmodule Emily.FastTest do
  use Emily.FastCase, async: true

  import Nx.Defn

  alias Emily.Fast

  if Emily.Backend in Emily.FastCase.backends(), do: doctest(Emily.Fast)

  # Functions of a user's own.
  defn block(x, w, b) do
    x
    |> Emily.Fast.layer_norm(w, b, eps: 1.0e-5)
    |> Nx.multiply(0.5)
  end

  defn norm_with_defaults(x, w), do: Emily.Fast.rms_norm(x, w)

  defn decode(q, k, v, sinks, position, opts \\ []) do
    opts = keyword!(opts, dims: 4)
    q = Emily.Fast.rope(q, position, dims: opts[:dims])
    k = Emily.Fast.rope_with_freqs(k, position, Nx.tensor([1.0, 0.01]), dims: opts[:dims])
    Emily.Fast.scaled_dot_product_attention(q, k, v, causal: true, sinks: sinks)
  end

  defn masked(q, k, v, visible) do
    mask = Nx.select(visible, 0.0, Nx.Constants.min_finite(:f32))
    Emily.Fast.scaled_dot_product_attention_with_mask(q, k, v, mask)
  end

  defn in_a_loop(x, w) do
    {x, _} =
      while {x, w}, _i <- 0..2 do
        {Emily.Fast.rms_norm(x, w), w}
      end

    x
  end

  defn in_a_branch(x, w) do
    if Nx.sum(x) > 0, do: Emily.Fast.rms_norm(x, w), else: x
  end

  defp numbers(shape, opts \\ []) do
    shape |> Nx.iota(Keyword.merge([type: :f32], opts)) |> Nx.multiply(1.7) |> Nx.sin()
  end

  for backend <- Emily.FastCase.backends() do
    describe "#{inspect(backend)}:" do
      setup do
        Nx.default_backend(unquote(backend))
        {:ok, backend: unquote(backend)}
      end

      test "a user's defn", %{backend: backend} do
        x = numbers({2, 4})
        y = block(x, Nx.tensor([1.0, 1.0, 1.0, 1.0]), Nx.tensor([1.0, 1.0, 1.0, 1.0]))
        assert_on(backend, y)
        assert_near(Nx.mean(y, axes: [-1]), [0.5, 0.5], 1.0e-6)

        assert_near(
          norm_with_defaults(x, Nx.broadcast(1.0, {4})),
          Fast.rms_norm(x, Nx.broadcast(1.0, {4})),
          0.0
        )
      end

      test "a user's defn with sinks, options and constants", %{backend: backend} do
        {q, k, v} = {numbers({1, 2, 1, 4}), numbers({1, 1, 3, 4}), numbers({1, 1, 3, 4})}
        sinks = Nx.tensor([0.5, -0.5])
        position = Nx.tensor(2)
        y = decode(q, k, v, sinks, position)
        assert_on(backend, y)

        expected =
          Fast.scaled_dot_product_attention(
            Fast.rope(q, position, dims: 4),
            Fast.rope_with_freqs(k, position, Nx.tensor([1.0, 0.01]), dims: 4),
            v,
            causal: true,
            sinks: sinks
          )

        assert_near(y, expected, 1.0e-6)
      end

      test "a mask made of a condition" do
        {q, k, v} = {numbers({1, 2, 3, 4}), numbers({1, 2, 3, 4}), numbers({1, 2, 3, 4})}
        visible = Nx.greater_equal(Nx.iota({3, 3}, axis: 0), Nx.iota({3, 3}, axis: 1))
        causal = Fast.scaled_dot_product_attention(q, k, v, causal: true)
        assert_near(masked(q, k, v, visible), causal, 1.0e-6)
      end

      test "in loops and branches" do
        {x, w} = {Nx.add(numbers({2, 4}), 2), Nx.tensor([1.0, 2.0, 1.0, 0.5])}
        once = Fast.rms_norm(x, w)
        thrice = once |> Fast.rms_norm(w) |> Fast.rms_norm(w)
        assert_near(in_a_loop(x, w), thrice, 1.0e-6)
        assert_near(in_a_branch(x, w), once, 1.0e-6)
        assert_near(in_a_branch(Nx.negate(x), w), Nx.negate(x), 0.0)
      end

      test "a traced function that closes over a tensor" do
        x = numbers({2, 4})
        w = Nx.tensor([1.0, 2.0, 1.0, 0.5], backend: Nx.BinaryBackend)
        assert_near(Nx.Defn.jit_apply(&Fast.rms_norm(&1, w), [x]), Fast.rms_norm(x, w), 1.0e-6)
      end

      test "offsets of every integer type, and plain integers" do
        x = numbers({1, 1, 3, 4})
        expected = Fast.rope(x, Nx.tensor(5), dims: 4)

        for type <- [:s8, :s16, :s32, :s64, :u8, :u16, :u32, :u64] do
          assert_near(Fast.rope(x, Nx.tensor(5, type: type), dims: 4), expected, 0.0)
        end

        assert_near(Fast.rope(x, 5, dims: 4), expected, 0.0)
      end

      test "an offset for each entry of the first axis", %{backend: backend} do
        x = numbers({3, 2, 4, 6})
        freqs = Nx.tensor([1.0, 0.1], backend: Nx.BinaryBackend)

        for rotate <- [
              &Fast.rope(&1, &2, dims: 4),
              &Fast.rope_with_freqs(&1, &2, freqs, dims: 4, scale: 0.5)
            ] do
          rows = for i <- 0..2, do: rotate.(x[i..i], Enum.at([0, 7, 100], i))
          right = Nx.concatenate(rows)
          got = rotate.(x, Nx.tensor([0, 7, 100]))
          assert_on(backend, got)
          assert_near(got, right, 1.0e-5)

          # Three axes, and traced.
          got = Nx.Defn.jit_apply(rotate, [x[[.., 0]], Nx.tensor([0, 7, 100])])
          assert_near(got, right[[.., 0]], 1.0e-5)
        end
      end

      test "a table of the geometric progression rotates like the base" do
        x = numbers({1, 2, 16, 8})
        table = Nx.tensor(for(i <- 0..3, do: :math.pow(10_000.0, -i / 4)), type: :f32)

        for offset <- [0, 1, 500], traditional <- [true, false] do
          opts = [dims: 8, traditional: traditional]
          # The two round a frequency differently by an ulp or two, which the position multiplies.
          tolerance = 1.0e-6 + 3.0e-7 * (offset + 16)

          assert_near(
            Fast.rope_with_freqs(x, Nx.tensor(offset), table, opts),
            Fast.rope(x, Nx.tensor(offset), opts),
            tolerance
          )
        end
      end

      test "what lies beyond the rotated entries stays as it is" do
        x = numbers({1, 2, 3, 8})
        y = Fast.rope(x, Nx.tensor(7), dims: 4)
        assert_near(y[[.., .., .., 4..7]], x[[.., .., .., 4..7]], 0.0)
      end

      test "the result has the type of the first tensor" do
        for type <- types(), other <- types() do
          x = numbers({1, 2, 3, 4}) |> Nx.as_type(type)
          o = numbers({1, 2, 3, 4}) |> Nx.as_type(other)
          w = Nx.tensor([1.0, 0.5, 2.0, 1.0], type: other)
          tolerance = tolerance({:bf, 16})

          for {y, full} <- [
                {Fast.rms_norm(x, w), Fast.rms_norm(up(x), up(w))},
                {Fast.layer_norm(x, w, w), Fast.layer_norm(up(x), up(w), up(w))},
                {Fast.scaled_dot_product_attention(x, o, o,
                   sinks: Nx.tensor([1.0, 2.0], type: other)
                 ),
                 Fast.scaled_dot_product_attention(up(x), up(o), up(o),
                   sinks: Nx.tensor([1.0, 2.0])
                 )},
                {Fast.scaled_dot_product_attention_with_mask(x, o, o, o[[.., .., .., 0..2]]),
                 Fast.scaled_dot_product_attention_with_mask(
                   up(x),
                   up(o),
                   up(o),
                   up(o[[.., .., .., 0..2]])
                 )}
              ] do
            assert y.type == type
            assert_near(y, full, tolerance)
          end
        end
      end

      test "names stay" do
        x = numbers({2, 4}, names: [:row, :hidden])
        w = Nx.tensor([1.0, 1.0, 1.0, 1.0], names: [:other])
        assert Fast.rms_norm(x, w).names == [:row, :hidden]
        assert Nx.Defn.jit_apply(&Fast.rms_norm/2, [x, w]).names == [:row, :hidden]

        q = numbers({1, 2, 3, 4}, names: [:batch, :head, :query, :size])
        k = numbers({1, 2, 5, 4}, names: [:batch, :head, :key, :size])
        names = [:batch, :head, :query, :size]
        assert Fast.scaled_dot_product_attention(q, k, k).names == names
        assert Nx.Defn.jit_apply(&Fast.scaled_dot_product_attention/3, [q, k, k]).names == names
        assert Fast.rope(q, 1, dims: 4).names == names
      end

      test "a vectorized x" do
        x = numbers({3, 2, 4})
        w = Nx.tensor([1.0, 2.0, 1.0, 0.5])
        v = Nx.vectorize(x, :v)

        for {vectorized, plain} <- [
              {Fast.rms_norm(v, w), Fast.rms_norm(x, w)},
              {Fast.layer_norm(v, w, w), Fast.layer_norm(x, w, w)},
              {Nx.Defn.jit_apply(&Fast.rms_norm/2, [v, w]), Fast.rms_norm(x, w)}
            ] do
          assert vectorized.vectorized_axes == [v: 3]
          assert vectorized.shape == {2, 4}
          assert_near(Nx.devectorize(vectorized), plain, 0.0)
        end

        x = numbers({3, 1, 2, 4})
        y = Fast.rope(Nx.vectorize(x, :v), 4, dims: 4)
        assert_near(Nx.devectorize(y), Fast.rope(x, 4, dims: 4), 0.0)
      end

      test "a causal query before all keys gives finite numbers, and does not touch the others" do
        {q, k} = {numbers({1, 2, 5, 4}), numbers({1, 2, 2, 4})}
        y = Fast.scaled_dot_product_attention(q, k, k, causal: true)
        assert Enum.all?(Nx.to_flat_list(y), &is_number/1)
        # Queries 3 and 4 stand at keys 0 and 1.
        last = Fast.scaled_dot_product_attention(q[[.., .., 3..4, ..]], k, k, causal: true)
        assert_near(y[[.., .., 3..4, ..]], last, 1.0e-6)
      end

      @tag :f64
      test "a row that hides every key is finite, whatever the types" do
        for type <- types(), mask_type <- types() ++ [{:f, 64}, {:s, 32}] do
          # Scores near -40, which f16's least number cannot take on top.
          q = Nx.broadcast(Nx.tensor(-4.5, type: type), {1, 1, 2, 4})
          k = Nx.broadcast(Nx.tensor(4.5, type: type), {1, 1, 3, 4})
          v = numbers({1, 1, 3, 4}) |> Nx.as_type(type)

          hide =
            if mask_type == {:s, 32},
              do: Nx.tensor(-2_147_483_648, type: mask_type),
              else: Nx.Constants.min_finite(mask_type)

          shown = Nx.tensor([[1, 1, 1], [0, 0, 0]])
          mask = Nx.select(shown, Nx.tensor(0, type: mask_type), hide)

          y = Fast.scaled_dot_product_attention_with_mask(q, k, v, mask)
          assert Enum.all?(Nx.to_flat_list(y), &is_number/1), inspect({type, mask_type, y})
          # The row that sees all keys, with equal scores, is their mean.
          assert_near(
            y[[0, 0, 0]],
            Nx.mean(Nx.as_type(v, :f32), axes: [2])[[0, 0]],
            tolerance(type)
          )
        end
      end

      test "masks with infinities hide keys in every type" do
        for type <- types() do
          [q, k, v] = for _ <- 1..3, do: numbers({1, 1, 3, 4}) |> Nx.as_type(type)
          visible = Nx.greater_equal(Nx.iota({3, 3}, axis: 0), Nx.iota({3, 3}, axis: 1))
          mask = Nx.select(visible, 0.0, Nx.Constants.neg_infinity(:f32))

          assert_near(
            Fast.scaled_dot_product_attention_with_mask(q, k, v, mask),
            Fast.scaled_dot_product_attention(q, k, v, causal: true),
            tolerance(type)
          )
        end
      end
    end
  end

  defp up(tensor), do: Nx.as_type(tensor, :f32)
end
