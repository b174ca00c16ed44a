defmodule Emily.Fast.ErrorsTest do
  # What the functions refuse, when called and when traced. Nothing here reaches a backend, so the
  # tensors are templates.
  use ExUnit.Case, async: true

  alias Emily.Fast

  defp t(shape, type \\ :f32),
    do: Nx.broadcast(Nx.tensor(0, type: type, backend: Nx.BinaryBackend), shape)

  setup do
    Nx.default_backend(Nx.BinaryBackend)
    :ok
  end

  defp refuses(message, fun), do: assert_raise(ArgumentError, "Emily.Fast." <> message, fun)

  test "einsum takes up to 64 operands" do
    refuses("einsum/2 takes up to 64 operands, got 800", fn ->
      Fast.einsum(Enum.map_join(1..800, ",", fn _ -> "a" end), List.duplicate(t({2}), 800))
    end)
  end

  describe "gates" do
    test "shapes and types" do
      refuses(
        "swiglu/2 expects up of shape {2, 4} (that of gate), got shape {4} and type f32",
        fn -> Fast.swiglu(t({2, 4}), t({4})) end
      )

      refuses(
        "geglu/3 expects up of type f32, f16, bf16 or f64, got shape {4} and type s32",
        fn -> Fast.geglu(t({4}), t({4}, :s32)) end
      )

      refuses("gelu/2 expects x of type f32, f16, bf16 or f64, got shape {4} and type u8", fn ->
        Fast.gelu(t({4}, :u8))
      end)
    end

    test "the approximation" do
      refuses("gelu/2 expects :approximation to be :none or :tanh, got: true", fn ->
        Fast.gelu(t({4}), approximation: true)
      end)

      refuses("geglu/3 has no option :tanh, it takes [:approximation]", fn ->
        Fast.geglu(t({4}), t({4}), tanh: true)
      end)
    end
  end

  describe "norms" do
    test "sizes of weight and bias" do
      refuses(
        "rms_norm/3 expects weight of shape {4} (the last axis of x), got shape {3} and type f32",
        fn -> Fast.rms_norm(t({2, 4}), t({3})) end
      )

      refuses(
        "rms_norm/3 expects weight of shape {4} (the last axis of x), got shape {1, 4} and type f32",
        fn -> Fast.rms_norm(t({2, 4}), t({1, 4})) end
      )

      refuses(
        "layer_norm/4 expects bias of shape {4} (the last axis of x), got shape {} and type f32",
        fn -> Fast.layer_norm(t({2, 4}), t({4}), t({})) end
      )
    end

    test "rank and type of x" do
      refuses("rms_norm/3 expects x of rank 1 or more, got shape {} and type f32", fn ->
        Fast.rms_norm(t({}), t({1}))
      end)

      for type <- [:s32, :u8, :c64] do
        refuses(
          "layer_norm/4 expects x of type f32, f16, bf16 or f64, got shape {4} and type #{type}",
          fn -> Fast.layer_norm(t({4}, type), t({4}), t({4})) end
        )
      end
    end

    test "type of weight" do
      refuses(
        "rms_norm/3 expects weight of type f32, f16, bf16 or f64, got shape {4} and type s32",
        fn -> Fast.rms_norm(t({4}), t({4}, :s32)) end
      )
    end

    test "options" do
      refuses("rms_norm/3 has no option :epsilon, it takes [:eps]", fn ->
        Fast.rms_norm(t({4}), t({4}), epsilon: 1.0e-5)
      end)

      refuses("rms_norm/3 got option :eps more than once", fn ->
        Fast.rms_norm(t({4}), t({4}), eps: 1.0e-5, eps: 1.0e-6)
      end)

      refuses("rms_norm/3 expects its options as a keyword list, got: %{eps: 1.0e-5}", fn ->
        Fast.rms_norm(t({4}), t({4}), %{eps: 1.0e-5})
      end)

      refuses("layer_norm/4 expects :eps to be a number that is not negative, got: -1", fn ->
        Fast.layer_norm(t({4}), t({4}), t({4}), eps: -1)
      end)

      refuses("rms_norm/3 expects :eps to be a number that is not negative, got: nil", fn ->
        Fast.rms_norm(t({4}), t({4}), eps: nil)
      end)

      refuses(
        "rms_norm/3 expects :eps to be a number that is not negative, " <>
          "got a tensor of shape {} and type f32",
        fn -> Fast.rms_norm(t({4}), t({4}), eps: t({})) end
      )
    end

    test "no tensor" do
      refuses("rms_norm/3 expects x to be a tensor, got: [1.0]", fn ->
        Fast.rms_norm([1.0], t({1}))
      end)
    end

    test "a vectorized weight" do
      refuses(
        "rms_norm/3 does not take a vectorized weight (use Nx.devectorize/2), " <>
          "got shape {4} and type f32 [v: 2]",
        fn -> Fast.rms_norm(t({2, 4}), Nx.vectorize(t({2, 4}), :v)) end
      )
    end

    test "when traced" do
      refuses(
        "rms_norm/3 expects weight of shape {4} (the last axis of x), got shape {3} and type f32",
        fn -> Nx.Defn.jit_apply(&Fast.rms_norm(&1, &2), [t({2, 4}), t({3})]) end
      )
    end
  end

  describe "rotations" do
    test "dims" do
      refuses("rope/3 needs the option :dims", fn -> Fast.rope(t({1, 2, 4}), t({}, :s32), []) end)

      for dims <- [0, -2, 3, 6, 2.0, nil, :all] do
        refuses(
          "rope/3 expects :dims to be an even positive integer, at most 4 (the last axis of x), " <>
            "got: #{inspect(dims)}",
          fn -> Fast.rope(t({1, 2, 4}), t({}, :s32), dims: dims) end
        )
      end
    end

    test "rank and type of x" do
      refuses("rope/3 expects x of rank 3 or more, got shape {2, 4} and type f32", fn ->
        Fast.rope(t({2, 4}), t({}, :s32), dims: 4)
      end)

      refuses(
        "rope/3 expects x of type f32, f16, bf16 or f64, got shape {1, 2, 4} and type s32",
        fn -> Fast.rope(t({1, 2, 4}, :s32), t({}, :s32), dims: 4) end
      )
    end

    test "offset" do
      refuses("rope/3 expects offset of an integer type, got shape {} and type f32", fn ->
        Fast.rope(t({1, 2, 4}), t({}), dims: 4)
      end)

      for shape <- [{1}, {3}, {2, 1}] do
        refuses(
          "rope/3 expects offset of shape {} (a scalar) or {2} (the first axis of x), " <>
            "got shape #{inspect(shape)} and type s64",
          fn -> Fast.rope(t({2, 2, 4}), t(shape, :s64), dims: 4) end
        )
      end
    end

    test "freqs" do
      refuses(
        "rope_with_freqs/4 expects freqs of shape {2} (half of :dims), got shape {4} and type f32",
        fn -> Fast.rope_with_freqs(t({1, 2, 4}), t({}, :s32), t({4}), dims: 4) end
      )

      refuses("rope_with_freqs/4 expects freqs of type f32, got shape {2} and type bf16", fn ->
        Fast.rope_with_freqs(t({1, 2, 4}), t({}, :s32), t({2}, :bf16), dims: 4)
      end)
    end

    test "options" do
      refuses("rope/3 expects :base to be a positive number, got: 0", fn ->
        Fast.rope(t({1, 2, 4}), t({}, :s32), dims: 4, base: 0)
      end)

      refuses("rope/3 expects :scale to be a number, got: :linear", fn ->
        Fast.rope(t({1, 2, 4}), t({}, :s32), dims: 4, scale: :linear)
      end)

      refuses("rope/3 expects :traditional to be true or false, got: 1", fn ->
        Fast.rope(t({1, 2, 4}), t({}, :s32), dims: 4, traditional: 1)
      end)

      refuses(
        "rope_with_freqs/4 has no option :base, it takes [:dims, :traditional, :scale]",
        fn -> Fast.rope_with_freqs(t({1, 2, 4}), t({}, :s32), t({2}), dims: 4, base: 10.0) end
      )
    end
  end

  describe "attention" do
    @q {2, 4, 3, 8}

    test "ranks and types" do
      refuses(
        "scaled_dot_product_attention/4 expects k of rank 4 ({batch, heads, length, head_dim}), " <>
          "got shape {4, 3, 8} and type f32",
        fn -> Fast.scaled_dot_product_attention(t(@q), t({4, 3, 8}), t(@q)) end
      )

      refuses(
        "scaled_dot_product_attention/4 expects v of type f32, f16, bf16 or f64, " <>
          "got shape {2, 4, 3, 8} and type s32",
        fn -> Fast.scaled_dot_product_attention(t(@q), t(@q), t(@q, :s32)) end
      )
    end

    test "sizes" do
      sdpa = "scaled_dot_product_attention/4"

      for {k, v, message} <- [
            {{1, 4, 3, 8}, {2, 4, 3, 8},
             "k of shape {2, 4, 3, 8} (as q and v demand), got shape {1, 4, 3, 8}"},
            {{2, 4, 3, 6}, {2, 4, 3, 8},
             "k of shape {2, 4, 3, 8} (as q and v demand), got shape {2, 4, 3, 6}"},
            {{2, 2, 3, 8}, {2, 4, 3, 8},
             "k of shape {2, 4, 3, 8} (as q and v demand), got shape {2, 2, 3, 8}"},
            {{2, 4, 5, 8}, {2, 4, 3, 8},
             "k of shape {2, 4, 3, 8} (as q and v demand), got shape {2, 4, 5, 8}"},
            {{2, 4, 3, 8}, {1, 4, 3, 8},
             "v of shape {2, 4, 3, 8} (as q demands), got shape {1, 4, 3, 8}"}
          ] do
        refuses("#{sdpa} expects #{message} and type f32", fn ->
          Fast.scaled_dot_product_attention(t(@q), t(k), t(v))
        end)
      end

      refuses(
        "#{sdpa} expects the heads of k and v to divide those of q, " <>
          "got q of shape {2, 4, 3, 8} and type f32 and k of shape {2, 3, 3, 8} and type f32",
        fn -> Fast.scaled_dot_product_attention(t(@q), t({2, 3, 3, 8}), t({2, 3, 3, 8})) end
      )
    end

    test "masks" do
      for shape <- [{2}, {3, 4}, {3, 3, 3}, {2, 2, 3, 3}, {1, 2, 4, 3, 3}] do
        refuses(
          "scaled_dot_product_attention_with_mask/5 expects mask to broadcast to {2, 4, 3, 3} " <>
            "(batch, heads, q_len, k_len), got shape #{inspect(shape)} and type f32",
          fn -> Fast.scaled_dot_product_attention_with_mask(t(@q), t(@q), t(@q), t(shape)) end
        )
      end

      refuses(
        "scaled_dot_product_attention_with_mask/5 expects mask of a float or integer type, " <>
          "got shape {3, 3} and type c64",
        fn ->
          Fast.scaled_dot_product_attention_with_mask(t(@q), t(@q), t(@q), t({3, 3}, :c64))
        end
      )
    end

    test "sinks" do
      for shape <- [{3}, {4, 4}, {2, 4, 1, 1}, {1, 1, 1, 4}] do
        refuses(
          "scaled_dot_product_attention/4 expects :sinks to broadcast to {1, 4, 1, 1} " <>
            "(or to have shape {4}), got shape #{inspect(shape)} and type f32",
          fn -> Fast.scaled_dot_product_attention(t(@q), t(@q), t(@q), sinks: t(shape)) end
        )
      end

      refuses("scaled_dot_product_attention/4 expects :sinks to be a tensor, got: :none", fn ->
        Fast.scaled_dot_product_attention(t(@q), t(@q), t(@q), sinks: :none)
      end)
    end

    test "options" do
      refuses("scaled_dot_product_attention/4 expects :scale to be a number, got: \"1\"", fn ->
        Fast.scaled_dot_product_attention(t(@q), t(@q), t(@q), scale: "1")
      end)

      refuses(
        "scaled_dot_product_attention/4 expects :causal to be true or false, got: nil",
        fn ->
          Fast.scaled_dot_product_attention(t(@q), t(@q), t(@q), causal: nil)
        end
      )

      refuses(
        "scaled_dot_product_attention_with_mask/5 has no option :causal, it takes [:scale, :sinks]",
        fn ->
          Fast.scaled_dot_product_attention_with_mask(t(@q), t(@q), t(@q), t({3, 3}),
            causal: true
          )
        end
      )
    end

    test "vectorized tensors" do
      refuses(
        "scaled_dot_product_attention/4 does not take a vectorized q (use Nx.devectorize/2), " <>
          "got shape {2, 4, 3, 8} and type f32 [v: 5]",
        fn ->
          Fast.scaled_dot_product_attention(Nx.vectorize(t({5, 2, 4, 3, 8}), :v), t(@q), t(@q))
        end
      )
    end
  end
end
