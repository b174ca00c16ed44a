defmodule Emily.Fast.Node do
  @moduledoc false
  # The one place that knows how a fused kernel reaches a backend, since Nx has two contracts:
  #
  #   * from 0.12 on, `Nx.block/4` hands the kernel's struct to `backend.block/4`;
  #   * before, `Nx.Shared.optional/4` calls `backend.NAME(out, tensors..., opts)` where the backend
  #     exports that function.
  #
  # A kernel is a struct whose module implements this behaviour. Both contracts run `composed/2`
  # where the backend has no kernel of its own, and differentiate through it.

  alias Emily.Fast.{
    Activation,
    Attention,
    CachedAttention,
    Einsum,
    Gate,
    LayerNorm,
    RMSNorm,
    RoPE
  }

  alias Emily.Quantization.{Dequantize, GatherMatmul, Matmul}

  # Both contracts want functions of a fixed number of arguments.
  @most_tensors 32

  @doc "The name of the kernel's callback under Nx 0.11."
  @callback callback(kernel :: struct) :: atom

  @doc """
  The kernel written with Nx operations. Takes and returns tensors without names.
  """
  @callback composed(kernel :: struct, [Nx.Tensor.t()]) :: Nx.Tensor.t()

  # The callbacks of Nx 0.11: the kernel of each, and how many tensors it takes between the template and the keyword
  # list.
  @kernels [
    fast_rms_norm: {RMSNorm, [2]},
    fast_layer_norm: {LayerNorm, [3]},
    fast_activation: {Activation, [1]},
    fast_gate: {Gate, [2]},
    fast_rope: {RoPE, [2]},
    fast_rope_with_freqs: {RoPE, [3]},
    fast_scaled_dot_product_attention: {Attention, [3]},
    fast_scaled_dot_product_attention_with_sinks: {Attention, [4]},
    fast_scaled_dot_product_attention_with_mask: {Attention, [4]},
    fast_scaled_dot_product_attention_with_mask_and_sinks: {Attention, [5]},
    fast_cached_attention: {CachedAttention, [5]},
    fast_dequantize: {Dequantize, [1, 2, 3]},
    fast_quantized_matmul: {Matmul, [2, 3, 4]},
    fast_gather_qmm: {GatherMatmul, [4, 5, 6]},
    fast_einsum: {Einsum, Enum.to_list(1..@most_tensors)}
  ]

  @doc "The callbacks of Nx 0.11, each with a number of tensors that it takes."
  def callbacks do
    for {callback, {_kernel, counts}} <- @kernels, tensors <- counts, do: {callback, tensors}
  end

  @doc "The kernel that a callback of Nx 0.11 and its keyword list stand for."
  def kernel(callback, opts) do
    {kernel, _counts} = Keyword.fetch!(@kernels, callback)
    struct!(kernel, opts)
  end

  @doc """
  Runs the kernel on `tensors`, or adds it to the expression that is being traced. `out` is the
  template of the result.

  More than #{@most_tensors} tensors are no kernel: the composed form runs.
  """
  def emit(%module{} = kernel, tensors, out) do
    tensors = same_representation(tensors)

    if length(tensors) > @most_tensors,
      do: composed(kernel, tensors, out),
      else: dispatch(module, kernel, tensors, out)
  end

  Code.ensure_loaded!(Nx)

  if function_exported?(Nx, :block, 4) do
    defp dispatch(_module, kernel, tensors, out),
      do: Nx.block(kernel, tensors, out, default(length(tensors), out))

    for n <- 1..@most_tensors do
      args = Macro.generate_arguments(n, __MODULE__)

      defp default(unquote(n), out),
        do: fn kernel, unquote_splicing(args) -> composed(kernel, unquote(args), out) end
    end
  else
    defp dispatch(module, kernel, tensors, out) do
      opts = kernel |> Map.from_struct() |> Enum.sort()
      default = default(length(tensors), kernel, out)
      Nx.Shared.optional(module.callback(kernel), tensors ++ [opts], out, default)
    end

    for n <- 1..@most_tensors do
      args = Macro.generate_arguments(n, __MODULE__)

      defp default(unquote(n), kernel, out),
        do: fn unquote_splicing(args), _opts -> composed(kernel, unquote(args), out) end
    end
  end

  @doc "What the kernel means, by Nx operations alone."
  # The evaluator passes tensors with the names that they have outside of the expression.
  def composed(%module{} = kernel, tensors, %{names: names}) do
    tensors = for t <- tensors, do: %{t | names: List.duplicate(nil, tuple_size(t.shape))}
    %{module.composed(kernel, tensors) | names: names}
  end

  # A tensor that a traced function closes over is no expression yet, and neither contract makes it one.
  defp same_representation(tensors) do
    if Enum.any?(tensors, &is_struct(&1.data, Nx.Defn.Expr)),
      do: Enum.map(tensors, &Nx.Defn.Expr.tensor/1),
      else: tensors
  end
end
