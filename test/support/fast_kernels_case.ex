if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.FastKernelsCase do
    @moduledoc false
    # A model with and without Emily's kernels: the unmodified one on Nx.BinaryBackend says what is
    # right, the rewritten one runs on Emily.

    use ExUnit.CaseTemplate

    alias Emily.Bumblebee.FastKernels
    alias Emily.Fast.{Activation, Attention, CachedAttention, Gate, LayerNorm, RMSNorm, RoPE}

    using do
      quote do
        import Emily.FastKernelsCase
      end
    end

    setup do
      Nx.default_backend(Nx.BinaryBackend)
      :ok
    end

    @doc """
    A small model of a family, with random parameters. `:mode` is that of `Axon.build/2`.
    """
    def model(module, options) do
      {architecture, options} = Keyword.pop(options, :architecture, :base)
      {mode, options} = Keyword.pop(options, :mode, :inference)

      spec =
        module
        |> struct!(architecture: architecture)
        |> Bumblebee.configure(options)

      model = Bumblebee.build_model(spec)
      {init, _} = Axon.build(model, mode: mode)

      # Initial parameters are small, or all ones or zeros, which would hide what is wrong. So only
      # their shapes are taken.
      templates = Nx.Defn.debug_expr(init).(module.input_template(spec), Axon.ModelState.empty())
      {data, _} = random(templates.data, :rand.seed_s(:exsss, 1))
      %{model: model, spec: spec, params: %{templates | data: data}}
    end

    defp random(%Nx.Tensor{type: {:f, 32}, shape: shape}, rand) do
      {numbers, rand} =
        Enum.map_reduce(1..Tuple.product(shape)//1, rand, fn _, rand ->
          {number, rand} = :rand.uniform_s(rand)
          {0.6 * number - 0.3, rand}
        end)

      {numbers |> Nx.tensor(type: :f32) |> Nx.reshape(shape), rand}
    end

    # The key of a dropout.
    defp random(%Nx.Tensor{shape: {2}}, rand), do: {Nx.Random.key(1), rand}

    defp random(%{} = tensors, rand) do
      {tensors, rand} =
        Enum.map_reduce(Enum.sort(tensors), rand, fn {name, tensor}, rand ->
          {tensor, rand} = random(tensor, rand)
          # Norms multiply by numbers about one, and have seen variances above zero.
          about_one? = name in ["gamma", "weight", "var"]
          {{name, if(about_one?, do: Nx.add(tensor, 1), else: tensor)}, rand}
        end)

      {Map.new(tensors), rand}
    end

    @doc "The outputs of a model as it is, on Nx.BinaryBackend."
    def expected(%{model: model, params: params}, inputs, options \\ []) do
      {_, predict} = Axon.build(model, [compiler: Nx.Defn.Evaluator] ++ options)
      predict.(params, inputs)
    end

    @doc "The outputs of the rewritten model on Emily."
    def actual(%{model: model, params: params}, inputs, options \\ []) do
      {_, predict} = Axon.build(FastKernels.apply(model), [compiler: Emily.Compiler] ++ options)
      predict.(params, inputs)
    end

    @doc "Asserts that both agree to 1.0e-5 of the largest number of each output."
    def assert_same(info, inputs, options \\ []) do
      assert_near(actual(info, inputs, options), expected(info, inputs, options))
    end

    def assert_near(actual, expected) do
      actual = numbers(actual)
      expected = numbers(expected)
      assert Map.keys(actual) == Map.keys(expected)
      assert expected != %{}

      for {path, right} <- expected do
        got = actual[path]
        assert {path, got.shape, got.type} == {path, right.shape, right.type}
        right = Nx.to_flat_list(right)
        scale = right |> Enum.map(&abs/1) |> Enum.max() |> max(1.0)

        worst =
          Enum.zip_with(Nx.to_flat_list(got), right, fn a, b ->
            if is_number(a) and is_number(b), do: abs(a - b), else: if(a == b, do: 0, else: scale)
          end)
          |> Enum.max()

        assert worst <= 1.0e-5 * scale, "#{inspect(path)} differs by #{worst} of #{scale}"
      end
    end

    # The tensors of an output by their paths.
    defp numbers(output), do: output |> tensors([]) |> Map.new()

    defp tensors(%Axon.None{}, _path), do: []
    defp tensors(%Nx.Tensor{} = tensor, path), do: [{Enum.reverse(path), tensor}]

    defp tensors(tuple, path) when is_tuple(tuple) do
      for {item, i} <- Enum.with_index(Tuple.to_list(tuple)),
          t <- tensors(item, [i | path]),
          do: t
    end

    defp tensors(map, path) when is_map(map) do
      for {key, item} <- Map.delete(map, :__struct__), t <- tensors(item, [key | path]), do: t
    end

    @doc """
    How many calls of each kernel the traced function of the rewritten model has, and of attention
    by its mask: `:attention`, `:causal`, `:cached` and `:masked`.
    """
    def kernels(%{model: model, params: params}, inputs, options \\ []) do
      {_, predict} =
        Axon.build(FastKernels.apply(model), [compiler: Nx.Defn.Evaluator] ++ options)

      traced(predict, [params, inputs])
    end

    @doc "The same of a function of one's own."
    def traced(fun, args) do
      expr = fun |> Nx.Defn.debug_expr() |> apply(args)
      {found, _seen} = walk_all(expr, {%{}, MapSet.new()})
      found
    end

    defp walk_all(composite, acc), do: Nx.Defn.Composite.reduce(composite, acc, &walk/2)

    defp walk(%Nx.Tensor{data: %{op: op, id: id, args: args}} = tensor, {found, seen} = acc) do
      if MapSet.member?(seen, id) do
        acc
      else
        acc = {found, MapSet.put(seen, id)}

        case {op, args} do
          {:block, [kernel, inputs | _]} ->
            {found, seen} = Enum.reduce(inputs, acc, &walk/2)
            kind = kind(kernel)
            {if(kind, do: Map.update(found, kind, 1, &(&1 + 1)), else: found), seen}

          _ ->
            {_, acc} = Nx.Defn.Tree.apply_args(tensor, acc, fn t, acc -> {t, walk(t, acc)} end)
            acc
        end
      end
    end

    defp kind(%RMSNorm{}), do: :rms_norm
    defp kind(%LayerNorm{}), do: :layer_norm
    defp kind(%RoPE{}), do: :rope
    defp kind(%Activation{}), do: :gelu
    defp kind(%Gate{activation: :silu}), do: :swiglu
    defp kind(%Gate{}), do: :geglu
    defp kind(%Attention{causal: true}), do: :causal
    defp kind(%Attention{mask: true}), do: :masked
    defp kind(%Attention{}), do: :attention
    defp kind(%CachedAttention{}), do: :cached
    defp kind(_block_of_nx), do: nil

    @doc "Numbers of that shape, no two alike."
    def pixels(shape) do
      shape |> Nx.iota(type: :f32) |> Nx.multiply(0.37) |> Nx.sin()
    end

    @doc """
    Asserts that every layer that the report counts is a kernel in what is computed, for `except`
    so many.
    """
    def assert_kernels(info, inputs, except \\ []) do
      traced = kernels(info, inputs)
      counts = Map.merge(report(info).rewritten, Map.new(except))

      attention = for kind <- [:attention, :causal, :cached, :masked], do: traced[kind] || 0
      assert Enum.sum(attention) == (counts[:attention] || 0)
      assert traced[:layer_norm] == counts[:layer_norm]

      for kind <- [:rms_norm, :gelu, :swiglu, :geglu],
          do: assert({kind, traced[kind]} == {kind, counts[kind]})

      # One for the query, one for the key.
      assert (traced[:rope] || 0) == 2 * (counts[:rope] || 0)
    end

    @doc "What the report says about a model."
    def report(%{model: model}) do
      {_, report} = FastKernels.apply(model, report: true)
      report
    end
  end
end
