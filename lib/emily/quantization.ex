defmodule Emily.Quantization do
  @moduledoc """
  Products with weights that are packed in a few bits a number (`Emily.QuantizedWeight`).

      w = Nx.Random.normal_split(Nx.Random.key(0), 0.0, 0.05, shape: {512, 256})
      weight = Emily.QuantizedWeight.from_dense(w, bits: 4, group_size: 64)
      Emily.Quantization.quantized_matmul(x, weight)

  | function | |
  |---|---|
  | `quantized_matmul/2` | a product with tensors of `Emily.Backend` |
  | `quantized_matmul_defn/2` | the same in `defn`, on any backend |
  | `gather_qmm/3` | products of chosen rows with chosen weights of a batch |
  | `dequantize_defn/1` | the numbers, by Nx operations alone |
  | `quantize/2` | a model with packed weights |
  | `report/1` | which of its weights are packed, and what they take |

  On `Emily.Backend` a product is one kernel, which unpacks the numbers while it multiplies: a weight of 4 bits is read
  in an eighth of the time of one of f32. What is multiplied with them is not rounded to fewer bits, but with
  blocks of GGML's to 15 or 16, and the sums are taken in f32. On any other backend, and where `Nx.Defn.grad/2`
  differentiates, products are composed of Nx operations.
  """

  import Nx.Defn, only: [deftransform: 2]

  alias Emily.Fast.Node
  alias Emily.Quantization.{GatherMatmul, Matmul, Model, Packing}

  @doc """
  The product of `x` and a packed weight: `x . Wᵀ` where the weight has `transpose: true`, else `x . W`.

  All tensors are on `Emily.Backend`; others raise an `ArgumentError`. Inside of `defn` it is
  `quantized_matmul_defn/2`, which has the shapes and types.

  ## Examples

      iex> w = Nx.iota({2, 32}, type: :f32, backend: Emily.Backend) |> Nx.remainder(4)
      iex> weight = Emily.QuantizedWeight.from_dense(w, group_size: 32, bits: 2)
      iex> x = Nx.broadcast(Nx.tensor(1.0, backend: Emily.Backend), {1, 32})
      iex> Emily.Quantization.quantized_matmul(x, weight) |> Nx.to_list()
      [[48.0, 48.0]]
  """
  @spec quantized_matmul(Nx.Tensor.t(), Emily.QuantizedWeight.t()) :: Nx.Tensor.t()
  deftransform quantized_matmul(x, weight) do
    fun = "Emily.Quantization.quantized_matmul/2"
    product(fun, x, weight, &on_emily!(fun, &1))
  end

  @doc """
  The product of `x` and a packed weight inside of `defn`: one kernel on `Emily.Backend`,
  `Nx.dot(x, dequantize_defn(weight))` on any other backend.

  Where the weight has rank 2, `x` is `{..., in}` and the product `{..., out}`. Where it has more, `x` has rank 2 or
  more, and the leading axes of both broadcast as in NumPy's `matmul`. `x` is of a float or integer type and may be
  vectorized. The product has the type to which Nx promotes that of `x` and that of the scales; in modes without scales
  of floats that of `x`, or f32 where `x` is of integers.

  The gradient is that of the composition, with respect to `x`, the scales and the biases.

  ## Examples

      iex> w = Nx.iota({2, 32}, type: :f32, backend: Emily.Backend) |> Nx.remainder(4)
      iex> weight = Emily.QuantizedWeight.from_dense(w, group_size: 32, bits: 2)
      iex> x = Nx.broadcast(Nx.tensor(1.0, backend: Emily.Backend), {32})
      iex> product = &Emily.Quantization.quantized_matmul_defn/2
      iex> Nx.Defn.jit_apply(product, [x, weight], compiler: Emily.Compiler) |> Nx.to_list()
      [48.0, 48.0]
      iex> on_elixir = Nx.backend_copy(weight, Nx.BinaryBackend)
      iex> Nx.Defn.jit_apply(product, [Nx.backend_copy(x, Nx.BinaryBackend), on_elixir]) |> Nx.to_list()
      [48.0, 48.0]
  """
  @spec quantized_matmul_defn(Nx.Tensor.t(), Emily.QuantizedWeight.t()) :: Nx.Tensor.t()
  deftransform quantized_matmul_defn(x, weight) do
    product("Emily.Quantization.quantized_matmul_defn/2", x, weight, fn _tensors -> :ok end)
  end

  @doc """
  Products of some of the matrices of `x` with some of a batch of packed weights, such as the experts of a layer.

  `x` is `{..., rows, in}` and the weight has rank 3 or more. The indices count the matrices of all leading axes of `x`,
  or of the weight, in row-major order. They are integers of shapes that broadcast to one, and the product is that
  shape followed by `{rows, out}`; its type is that of `quantized_matmul_defn/2`. An index that is out of
  range counts as the nearest in it. It works in `defn` and on any backend.

  ## Options

    * `:lhs_indices` - which matrices of `x`. Defaults to all, in the shape of the leading axes
    * `:rhs_indices` - which matrices of the weight. Defaults to all, in the shape of the leading axes

  ## Examples

  Two experts, of which one is all ones and one all twos; two tokens choose the second and the first:

      iex> w = Nx.tensor([[[1.0]], [[2.0]]], backend: Emily.Backend) |> Nx.broadcast({2, 3, 32})
      iex> experts = Emily.QuantizedWeight.from_dense(w, group_size: 32)
      iex> x = Nx.broadcast(Nx.tensor(1.0, backend: Emily.Backend), {2, 1, 32})
      iex> Emily.Quantization.gather_qmm(x, experts, rhs_indices: Nx.tensor([1, 0])) |> Nx.to_list()
      [[[64.0, 64.0, 64.0]], [[32.0, 32.0, 32.0]]]
  """
  @spec gather_qmm(Nx.Tensor.t(), Emily.QuantizedWeight.t(), keyword()) :: Nx.Tensor.t()
  deftransform gather_qmm(x, weight, opts \\ []) do
    fun = "Emily.Quantization.gather_qmm/3"
    packing = Packing.of!(fun, weight)
    x = x!(fun, x)

    if x.vectorized_axes != [],
      do: Packing.fail!(fun, "does not take a vectorized x (use Nx.devectorize/2)")

    opts = indices!(fun, opts)
    shape = Packing.shape(packing, weight.value.shape)

    indices =
      for {tensor, name} <- [{x.shape, :lhs_indices}, {shape, :rhs_indices}],
          do: opts[name] || GatherMatmul.all(tensor)

    case GatherMatmul.product(x.shape, shape, weight.transpose, Enum.map(indices, & &1.shape)) do
      {:ok, out} ->
        type = type(packing, x, weight)
        kernel = %GatherMatmul{packing: packing, transpose: weight.transpose, type: type}
        Node.emit(kernel, [x | indices] ++ Packing.tensors(weight), Nx.template(out, type))

      {:error, reason} ->
        Packing.fail!(
          fun,
          "expects #{reason}, got x of #{Packing.describe(x)} and a weight of shape #{inspect(shape)}"
        )
    end
  end

  @doc """
  The numbers of a packed weight by Nx operations alone, for any backend and compiler.

  It gives what `Emily.QuantizedWeight.to_dense/1` gives.

  ## Examples

      iex> w = Nx.iota({2, 32}, type: :f32, backend: Emily.Backend) |> Nx.remainder(4)
      iex> weight = Emily.QuantizedWeight.from_dense(w, group_size: 32, bits: 2)
      iex> weight = Nx.backend_copy(weight, Nx.BinaryBackend)
      iex> Nx.Defn.jit_apply(&Emily.Quantization.dequantize_defn/1, [weight]) |> Nx.sum() |> Nx.to_number()
      96.0
  """
  @spec dequantize_defn(Emily.QuantizedWeight.t()) :: Nx.Tensor.t()
  deftransform dequantize_defn(weight) do
    packing = Packing.of!("Emily.Quantization.dequantize_defn/1", weight)

    packing
    |> Packing.numbers(Packing.tensors(weight))
    |> Nx.as_type(Packing.type(packing, weight.scales))
  end

  @doc """
  The bits that `dequantize_defn/1` takes apart.

      iex> Emily.Quantization.defn_supported_bits()
      [2, 3, 4, 5, 6, 8]
  """
  @spec defn_supported_bits() :: [pos_integer()]
  def defn_supported_bits, do: Packing.bits("affine")

  @doc """
  The model with packed weights in the place of dense ones: takes and gives what `Bumblebee.load_model/2` does, or any map
  with an Axon model under `:model` and its `Axon.ModelState` under `:params`.

      {:ok, model} = Bumblebee.load_model({:hf, "HuggingFaceTB/SmolLM2-135M-Instruct"})
      model = Emily.Quantization.quantize(model, bits: 8)

  The kernels of all dense layers become `Emily.QuantizedWeight`s, one after another, so that little more memory is taken
  than the dense and the packed weights have. A kernel whose inputs are no multiple of the group, or that is of
  another type than f32, f16 and bf16, stays dense: `report/1` says which did. The model's layers take both. Where the
  dense kernels are referred to nowhere else, their memory is free afterwards.

  ## Options

    * `:mode`, `:group_size`, `:bits` - as in `Emily.QuantizedWeight.from_dense/2`
    * `:except` - layers that stay dense: a list of names and regular expressions that match names. Each must mean at
      least one layer. Defaults to `[]`
    * `:head` - whether Bumblebee's layers of transposed kernels, such as a language model's output, are packed too.
      Defaults to `false`
    * `:embedding` - whether embeddings are packed too. Defaults to `false`

  ## Examples

      iex> model = Axon.input("x", shape: {nil, 64}) |> Axon.dense(4, name: "first") |> Axon.dense(2, name: "second")
      iex> {init, _} = Axon.build(model)
      iex> params = init.(Nx.template({1, 64}, :f32), Axon.ModelState.empty())
      iex> info = Emily.Quantization.quantize(%{model: model, params: params}, bits: 8)
      iex> report = Emily.Quantization.report(info)
      iex> {report.packed["first"].bits, Map.keys(report.dense)}
      {8, ["second"]}
  """
  @spec quantize(map(), keyword()) :: map()
  def quantize(model_info, opts \\ []), do: Model.quantize(model_info, opts)

  @doc """
  Which weights of a model are packed, and how many bytes they take.

    * `:packed` - by layer, the `:mode`, `:group_size`, `:bits`, `:shape` (outputs first) and `:bytes` of its kernel
    * `:dense` - by layer, the `:shape`, `:type` and `:bytes` of kernels that could be packed and are not
    * `:bytes` - those of all parameters. Tensors that layers share count for each

  See `quantize/2` for an example.
  """
  @spec report(map()) :: %{packed: map(), dense: map(), bytes: non_neg_integer()}
  def report(model_info), do: Model.report(model_info)

  defp product(fun, x, weight, check) do
    packing = Packing.of!(fun, weight)
    x = x!(fun, x)
    tensors = Packing.tensors(weight)
    check.([x | tensors])
    shape = Packing.shape(packing, weight.value.shape)

    flat = Nx.devectorize(x, keep_names: false)
    leading = length(x.vectorized_axes)

    if leading > 0 and tuple_size(shape) > 2,
      do: Packing.fail!(fun, "takes a vectorized x with weights of rank 2 only")

    case Matmul.product(flat.shape, shape, weight.transpose) do
      {:ok, out} ->
        type = type(packing, x, weight)
        kernel = %Matmul{packing: packing, transpose: weight.transpose, type: type}
        result = Node.emit(kernel, [flat | tensors], Nx.template(out, type))
        revectorize(result, x.vectorized_axes, leading)

      {:error, reason} ->
        Packing.fail!(
          fun,
          "expects x #{reason}, got #{Packing.describe(x)} and a weight of shape #{inspect(shape)}"
        )
    end
  end

  defp revectorize(result, [], _leading), do: result

  defp revectorize(result, axes, leading) do
    {_, sizes} = result.shape |> Tuple.to_list() |> Enum.split(leading)

    %{
      result
      | shape: List.to_tuple(sizes),
        names: Enum.drop(result.names, leading),
        vectorized_axes: axes
    }
  end

  defp type(%{mode: "affine"}, x, weight), do: Nx.Type.merge(x.type, weight.scales.type)

  defp type(_packing, x, _weight),
    do: if(match?({kind, _} when kind in [:s, :u], x.type), do: {:f, 32}, else: x.type)

  defp x!(fun, %Nx.Tensor{type: {kind, bits}} = x) do
    unless kind in [:s, :u] or {kind, bits} in [{:f, 16}, {:bf, 16}, {:f, 32}, {:f, 64}],
      do: Packing.fail!(fun, "expects x of a float or integer type, got #{Packing.describe(x)}")

    x
  end

  defp x!(fun, other), do: Packing.fail!(fun, "expects x to be a tensor, got: #{inspect(other)}")

  # The kernel is looked for where the tensors are.
  defp on_emily!(fun, tensors) do
    traced = Enum.any?(tensors, &is_struct(&1.data, Nx.Defn.Expr))

    for %{data: %backend{}} = tensor <- tensors, not traced, backend != Emily.Backend do
      Packing.fail!(
        fun,
        "expects tensors of Emily.Backend, got #{Packing.describe(tensor)} of #{inspect(backend)}; " <>
          "quantized_matmul_defn/2 takes any"
      )
    end
  end

  defp indices!(fun, opts) do
    names = [:lhs_indices, :rhs_indices]

    unless Keyword.keyword?(opts) and Keyword.keys(opts) -- names == [],
      do: Packing.fail!(fun, "takes the options #{inspect(names)}, got: #{inspect(opts)}")

    for {name, indices} <- opts, indices != nil do
      unless match?(
               %Nx.Tensor{type: {kind, _}, vectorized_axes: []} when kind in [:s, :u],
               indices
             ),
             do:
               Packing.fail!(
                 fun,
                 "expects #{name} to be a tensor of integers, got: #{inspect(indices)}"
               )

      {name, indices}
    end
  end
end
