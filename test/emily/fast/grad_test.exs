defmodule Emily.Fast.GradTest do
  # Gradients go through the composed forms on every backend. On BinaryBackend they are held
  # against central differences in f64, on Emily against BinaryBackend's in f32.
  use Emily.FastCase, async: true

  alias Emily.Fast

  # {name, shapes of the differentiated tensors, function}
  @cases [
    {"rms_norm", [{2, 4}, {4}], :rms_norm, []},
    {"layer_norm", [{2, 4}, {4}, {4}], :layer_norm, []},
    {"gelu", [{2, 4}], :gelu, []},
    {"gelu, tanh", [{2, 4}], :gelu, [approximation: :tanh]},
    {"swiglu", [{2, 4}, {2, 4}], :swiglu, []},
    {"geglu", [{2, 4}, {2, 4}], :geglu, []},
    {"geglu, tanh", [{2, 4}, {2, 4}], :geglu, [approximation: :tanh]},
    {"rope", [{1, 2, 3, 6}], :rope, [dims: 4]},
    {"rope, traditional", [{1, 2, 3, 4}], :rope, [dims: 4, traditional: true]},
    {"rope_with_freqs", [{1, 2, 3, 4}], :rope_with_freqs, [dims: 4]},
    {"attention", [{1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}], :attention, []},
    {"attention, causal, grouped", [{1, 4, 2, 4}, {1, 2, 3, 4}, {1, 2, 3, 2}], :attention,
     [causal: true]},
    {"attention, sinks", [{1, 2, 2, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}, {2}], :sinks, []},
    {"attention, cached", [{1, 4, 2, 4}, {1, 2, 4, 4}, {1, 2, 4, 2}], :cached, [scale: 0.5]},
    {"attention, mask", [{1, 2, 2, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}, {2, 3}], :mask, []}
  ]

  @einsums [
    {"ij,jk->ik", [{2, 3}, {3, 4}]},
    {"jki,kjl->li", [{2, 3, 2}, {3, 2, 4}]},
    {"bhid,bhjd->bhij", [{2, 1, 2, 3}, {2, 1, 3, 3}]},
    {"ijb,kbj->bik", [{2, 3, 2}, {2, 2, 3}]},
    {"ij,kj,kl->il", [{2, 3}, {4, 3}, {4, 2}]},
    {"ab,bc,cd,da", [{2, 3}, {3, 2}, {2, 2}, {2, 2}]},
    {"i,j,ij,->ji", [{2}, {3}, {2, 3}, {}]},
    {"ii", [{3, 3}]},
    {"iij->ji", [{3, 3, 2}]},
    {"ijij,jk->k", [{2, 3, 2, 3}, {3, 2}]},
    {"iii->i", [{3, 3, 3}]},
    {"...ij,...j->...", [{2, 1, 2, 3}, {3, 1}]},
    {"ij,ij->j", [{2, 1}, {1, 3}]},
    {"ij,k->jk", [{2, 3}, {2}]}
  ]

  defp run(:rms_norm, [x, w], opts), do: Fast.rms_norm(x, w, opts)
  defp run(:layer_norm, [x, w, b], opts), do: Fast.layer_norm(x, w, b, opts)
  defp run(:gelu, [x], opts), do: Fast.gelu(x, opts)
  defp run(:swiglu, [gate, up], []), do: Fast.swiglu(gate, up)
  defp run(:geglu, [gate, up], opts), do: Fast.geglu(gate, up, opts)
  defp run(:rope, [x], opts), do: Fast.rope(x, Nx.tensor(3), opts)

  defp run(:rope_with_freqs, [x], opts),
    do: Fast.rope_with_freqs(x, Nx.tensor(3), Nx.tensor([0.5, 0.25], type: :f32), opts)

  defp run(:attention, [q, k, v], opts), do: Fast.scaled_dot_product_attention(q, k, v, opts)

  defp run(:sinks, [q, k, v, sinks], opts),
    do: Fast.scaled_dot_product_attention(q, k, v, [sinks: sinks] ++ opts)

  defp run(:mask, [q, k, v, mask], opts),
    do: Fast.scaled_dot_product_attention_with_mask(q, k, v, mask, opts)

  defp run(:cached, [q, k, v], opts),
    do: Fast.CachedAttention.run(q, k, v, Nx.tensor([[0, 1, 1, 0]]), Nx.tensor(1), opts)

  defp run(:einsum, tensors, equation), do: Fast.einsum(equation, tensors)

  # A loss that weighs every element differently.
  defp loss(kernel, tensors, opts) do
    y = run(kernel, tensors, opts)
    Nx.sum(Nx.multiply(y, Nx.sin(Nx.iota(Nx.shape(y), type: Nx.type(y)))))
  end

  defp inputs(shapes, type, backend) do
    for {shape, i} <- Enum.with_index(shapes) do
      shape
      |> Nx.iota(backend: backend, type: type)
      |> Nx.multiply(1.3 + i)
      |> Nx.add(0.7 * i)
      |> Nx.sin()
      |> Nx.as_type(type)
    end
  end

  defp gradients(kernel, tensors, opts, compiler \\ Nx.Defn.Evaluator) do
    Nx.Defn.jit_apply(
      fn tensors ->
        Nx.Defn.grad(tensors, fn tensors -> loss(kernel, Tuple.to_list(tensors), opts) end)
      end,
      [List.to_tuple(tensors)],
      compiler: compiler
    )
    |> Tuple.to_list()
  end

  defp central_differences(kernel, tensors, opts, i) do
    h = 1.0e-5
    tensor = Enum.at(tensors, i)
    numbers = Nx.to_flat_list(tensor)

    for j <- 0..(length(numbers) - 1) do
      [up, down] =
        for step <- [h, -h] do
          moved =
            numbers
            |> List.update_at(j, &(&1 + step))
            |> Nx.tensor(type: :f64)
            |> Nx.reshape(tensor.shape)

          # Within a trace, since einsum outside of one is Emily's alone.
          fn moved -> loss(kernel, List.replace_at(tensors, i, moved), opts) end
          |> Nx.Defn.jit_apply([moved])
          |> Nx.to_number()
        end

      (up - down) / (2 * h)
    end
  end

  @all @cases ++
         for(
           {equation, shapes} <- @einsums,
           do: {"einsum #{equation}", shapes, :einsum, equation}
         )

  for {name, shapes, kernel, opts} <- @all do
    @tag shapes: shapes, kernel: kernel, opts: opts
    test "#{name} on Nx.BinaryBackend", %{shapes: shapes, kernel: kernel, opts: opts} do
      Nx.default_backend(Nx.BinaryBackend)
      tensors = inputs(shapes, :f64, Nx.BinaryBackend)

      for {gradient, i} <- kernel |> gradients(tensors, opts) |> Enum.with_index() do
        # The differences themselves are good to about h² and to f64's ulp divided by h.
        assert_near(gradient, central_differences(kernel, tensors, opts, i), 1.0e-7)
      end
    end

    if Emily.Backend in Emily.FastCase.backends() do
      @tag shapes: shapes, kernel: kernel, opts: opts
      test "#{name} on Emily.Backend", %{shapes: shapes, kernel: kernel, opts: opts} do
        Nx.default_backend(Nx.BinaryBackend)
        expected = gradients(kernel, inputs(shapes, :f32, Nx.BinaryBackend), opts)
        Nx.default_backend(Emily.Backend)

        tensors =
          for t <- inputs(shapes, :f32, Nx.BinaryBackend), do: Nx.backend_copy(t, Emily.Backend)

        for compiler <- [Nx.Defn.Evaluator, Emily.Compiler],
            {a, e} <- Enum.zip(gradients(kernel, tensors, opts, compiler), expected) do
          assert_on(Emily.Backend, a)
          # Two f32 computations of some hundred roundings.
          assert_near(a, e, 2.0e-5)
        end
      end
    end
  end
end
