defmodule Emily.Quantization.Layers do
  @moduledoc """
  Layers of Axon models with packed weights.
  """

  import Nx.Defn, only: [deftransform: 2]

  alias Emily.Quantization.{Dequantize, Packing}

  @doc """
  A dense layer whose kernel is packed: `quantized_matmul_defn(x, weight) + bias`.

  Its arguments are those of `Axon.Quantization.Layers.weight_only_quantized_dense/4`, which it takes the place of: `x`
  is `{..., in}`, the weight an `Emily.QuantizedWeight` of rank 2, `bias` a number or a tensor that broadcasts to the
  product. Where Axon calls it without a bias, its options stand in that place. The options are Axon's own, such as
  `:mode`, and change nothing. The product of `Emily.Quantization.quantized_matmul_defn/2` says which type it has.

  ## Examples

      iex> w = Nx.iota({2, 32}, type: :f32, backend: Emily.Backend) |> Nx.remainder(4)
      iex> weight = Emily.QuantizedWeight.from_dense(w, group_size: 32, bits: 2)
      iex> x = Nx.broadcast(Nx.tensor(1.0, backend: Emily.Backend), {1, 32})
      iex> Emily.Quantization.Layers.quantized_dense(x, weight, Nx.tensor([1.0, 2.0])) |> Nx.to_list()
      [[49.0, 50.0]]

  In a model, the weight is a parameter:

      kernel = Axon.param("kernel", fn _ -> {out, in} end)
      Axon.layer(&Emily.Quantization.Layers.quantized_dense/3, [x, kernel], op_name: :dense)
  """
  @spec quantized_dense(
          Nx.Tensor.t(),
          Emily.QuantizedWeight.t(),
          Nx.Tensor.t() | number() | keyword(),
          keyword()
        ) :: Nx.Tensor.t()
  deftransform quantized_dense(x, weight, bias \\ 0, opts \\ []) do
    {bias, opts} = if is_list(bias), do: {0, bias}, else: {bias, opts}

    unless Keyword.keyword?(opts) and (is_number(bias) or is_struct(bias, Nx.Tensor)) do
      raise ArgumentError,
            "Emily.Quantization.Layers.quantized_dense/4 expects bias to be a tensor or a number and " <>
              "options as a keyword list, got: #{inspect(bias)} and #{inspect(opts)}"
    end

    product = Emily.Quantization.quantized_matmul_defn(x, weight)
    if bias == 0, do: product, else: Nx.add(product, bias)
  end

  @doc """
  An embedding whose table is packed: the rows of the weight with the numbers `ids`, clamped, as dense numbers.

  `ids` are integers of any shape, the weight an `Emily.QuantizedWeight` of rank 2, with a row for each entry whatever its
  `transpose`. The result is `ids`' shape followed by the size of a row, in f32, which has the numbers with the fewest
  roundings.

  ## Examples

      iex> w = Nx.iota({3, 32}, type: :f32, backend: Emily.Backend)
      iex> weight = Emily.QuantizedWeight.from_dense(w, group_size: 32, bits: 8)
      iex> rows = Emily.Quantization.Layers.quantized_embedding(Nx.tensor([2, 0]), weight)
      iex> {Nx.shape(rows), Nx.to_number(rows[1][31])}
      {{2, 32}, 31.0}
  """
  @spec quantized_embedding(Nx.Tensor.t(), Emily.QuantizedWeight.t()) :: Nx.Tensor.t()
  deftransform quantized_embedding(ids, weight) do
    fun = "Emily.Quantization.Layers.quantized_embedding/2"
    packing = Packing.of!(fun, weight)

    unless match?(%Nx.Tensor{type: {kind, _}} when kind in [:s, :u], ids),
      do: Packing.fail!(fun, "expects ids to be a tensor of integers, got: #{inspect(ids)}")

    unless tuple_size(weight.value.shape) == 2 do
      Packing.fail!(
        fun,
        "expects a weight of rank 2, got value of #{Packing.describe(weight.value)}"
      )
    end

    # A weight has rank 2 or more, and one id is none.
    flat =
      ids |> Nx.reshape({Nx.size(ids)}) |> Nx.max(0) |> Nx.min(Nx.axis_size(weight.value, 0) - 1)

    rows =
      for name <- [:value, :scales, :biases], tensor = Map.fetch!(weight, name), into: %{} do
        {name, if(tensor.shape == {}, do: tensor, else: Nx.take(tensor, flat))}
      end

    numbers = Dequantize.run(packing, struct!(weight, rows), {:f, 32})
    size = Nx.axis_size(numbers, -1)
    Nx.reshape(numbers, List.to_tuple(Tuple.to_list(ids.shape) ++ [size]))
  end
end
