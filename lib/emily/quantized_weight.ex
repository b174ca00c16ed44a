defmodule Emily.QuantizedWeight do
  @moduledoc """
  A weight whose numbers are packed in a few bits each.

  It is an `Nx.Container`: it goes into and out of `defn`, into the parameters of a model, through `Nx.serialize/2` and
  from backend to backend, and keeps what it is.

    * `:value` - the numbers' codes, `{..., n * bits / 32}` of u32 for `n` numbers a row. Number `i` of a row is in the
      bits from `i * bits` on, the lowest first, of which some lie in one word and the rest in the next where `:bits` is
      3, 5 or 6
    * `:scales` - one for each group of a row, `{..., n / group_size}`
    * `:biases` - one for each group, or a scalar zero where the mode has none
    * `:group_size` - how many numbers share a scale
    * `:bits` - how many bits a number has
    * `:transpose` - how `Emily.Quantization.quantized_matmul/2` multiplies: `true` where the rows are outputs, as in
      `x . Wᵀ`, `false` where they are inputs, as in `x . W`
    * `:mode` - what the codes mean

  ## Modes

  | mode | groups | bits | number | scales |
  |---|---|---|---|---|
  | `"affine"` | 32, 64, 128 | 2, 3, 4, 5, 6, 8 | `scale * code + bias` | f32, f16 or bf16, as the dense weight |
  | `"mxfp4"` | 32 | 4 | `scale * e2m1(code)` | u8, a power of two (E8M0) |
  | `"mxfp8"` | 32 | 8 | `scale * e4m3(code)` | u8, a power of two (E8M0) |
  | `"nvfp4"` | 16 | 4 | `scale * e2m1(code)` | u8, a float of 8 bits (E4M3) |

  Modes that begin with `"ggml_"` have blocks of GGML's types, as GGUF files do: `"ggml_q4_0"`, `"ggml_q4_1"`,
  `"ggml_q5_0"`, `"ggml_q5_1"`, `"ggml_q8_0"`, `"ggml_q2_k"`, `"ggml_q3_k"`, `"ggml_q4_k"`, `"ggml_q5_k"`, `"ggml_q6_k"`,
  `"ggml_iq4_nl"`, `"ggml_iq4_xs"` and `"ggml_mxfp4"`. There `:value` has the bytes, `{..., bytes}` of u8, which say it all:
  `:scales` and `:biases` are scalar zeros. `Emily.GGUF.packed/3` makes them; `from_dense/2` does not.

  The small floats are those of the [Microscaling Formats
  specification](https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf); the layout is
  MLX's, so a checkpoint of MLX's can be taken as it is.
  """

  @derive {Nx.Container,
           containers: [:value, :scales, :biases], keep: [:group_size, :bits, :transpose, :mode]}
  defstruct [:value, :scales, :biases, group_size: 64, bits: 4, transpose: true, mode: "affine"]

  import Nx.Defn, only: [deftransform: 2]

  alias Emily.Native
  alias Emily.Quantization.{Blocks, Dequantize, Packing}

  @type t :: %__MODULE__{
          value: Nx.Tensor.t(),
          scales: Nx.Tensor.t(),
          biases: Nx.Tensor.t(),
          group_size: pos_integer(),
          bits: pos_integer(),
          transpose: boolean(),
          mode: String.t()
        }

  @doc """
  Packs a dense weight.

  `w` is a tensor of any backend, of type f32, f16 or bf16 and rank 2 or more, whose last axis is a multiple of the
  group; the leading axes of one of rank 3 or more are a batch. All numbers must be finite. The packed weight is on
  `Emily.Backend`, on the device of `w` where it is there already. It is computed at once, outside of `defn`.

  Codes are rounded to the nearest as MLX does. In mode `"affine"` the end of a group that is further from zero is kept
  without error, and zero where it lies within; in the others the scale takes the greatest number to no more than the
  greatest code, by the least power of two that does, or about to it, by the nearest float.

  ## Options

    * `:mode` - one of those above. Defaults to `"affine"`
    * `:group_size` - how many numbers of a row share a scale. Defaults to 64, or to the one that the mode takes
    * `:bits` - how many bits a number has. Defaults to 4, or to those that the mode takes
    * `:transpose` - whether the rows of `w` are outputs, as products with the weight take it. Defaults to `true`

  Other types, ranks, sizes and options raise an `ArgumentError` that names the argument.

  ## Examples

  Sixteen steps from -8 to 7, four times, need no more than 4 bits:

      iex> w = Nx.iota({2, 64}, type: :f32, backend: Emily.Backend) |> Nx.remainder(16) |> Nx.subtract(8)
      iex> weight = Emily.QuantizedWeight.from_dense(w, group_size: 32)
      iex> {Nx.shape(weight.value), Nx.shape(weight.scales), weight.bits}
      {{2, 8}, {2, 2}, 4}
      iex> weight |> Emily.QuantizedWeight.to_dense() |> Nx.equal(w) |> Nx.all() |> Nx.to_number()
      1

      iex> Emily.QuantizedWeight.from_dense(Nx.iota({2, 48}, type: :f32))
      ** (ArgumentError) Emily.QuantizedWeight.from_dense/2 expects the last axis of w to be a multiple of group_size 64, got shape {2, 48} and type f32
  """
  @spec from_dense(Nx.Tensor.t(), keyword()) :: t()
  def from_dense(w, opts \\ []) do
    fun = "Emily.QuantizedWeight.from_dense/2"
    opts = options!(fun, opts)
    packing = Packing.new!(fun, opts[:mode], opts[:group_size], opts[:bits])

    if Blocks.type(packing.mode),
      do:
        Packing.fail!(
          fun,
          "does not pack into blocks of GGML's, got mode #{inspect(packing.mode)}"
        )

    dense!(fun, w, packing)

    device =
      case w.data do
        %Emily.Backend{device: device} -> device
        _ -> Native.default_device()
      end

    # On CUDA MLX (0.32.4) rounds numbers that lie between two codes otherwise, and has other scales for zeros: the bits would
    # depend on the device.
    on = if packing.mode == "affine", do: device, else: :cpu
    # MLX moves memory of a GPU's that the processor reads.
    w = if on == device, do: w, else: Nx.backend_copy(w, Nx.BinaryBackend)
    array = Emily.Backend.array(w, on)
    axes = Enum.to_list(0..(tuple_size(w.shape) - 1))

    [finite | refs] =
      Native.run(
        [
          {:all, {:isfinite, array}, axes, false},
          {:quantize, array, packing.group_size, packing.bits, packing.mode}
        ],
        Emily.Stream.of(on)
      )

    # Else the dense weight would stay beside the packed one.
    Native.eval([finite | refs])
    if Native.item(finite) != 1, do: Packing.fail!(fun, "expects w to have finite numbers only")

    [value, scales | biases] = Enum.map(refs, &tensor(&1, device))

    %__MODULE__{
      value: value,
      scales: scales,
      biases:
        List.first(biases) || Nx.tensor(0, type: :u8, backend: {Emily.Backend, device: device}),
      group_size: packing.group_size,
      bits: packing.bits,
      transpose: opts[:transpose],
      mode: packing.mode
    }
  end

  @doc """
  The numbers of a packed weight as a dense tensor, in the shape that was packed.

  The type is that of the scales in mode `"affine"`, in which each number is rounded once, and f32 in the others: without
  rounding in those of small floats, and as GGML computes them in those of blocks. It works in `defn` and on any backend; on `Emily.Backend` it is one kernel.

  ## Examples

      iex> w = Nx.tensor([List.duplicate(0.75, 32)], backend: Emily.Backend)
      iex> weight = Emily.QuantizedWeight.from_dense(w, mode: "mxfp4")
      iex> Nx.to_list(weight.scales)
      [[124]]
      iex> weight |> Emily.QuantizedWeight.to_dense() |> Nx.reduce_max() |> Nx.to_number()
      0.75
  """
  @spec to_dense(t()) :: Nx.Tensor.t()
  deftransform to_dense(weight) do
    packing = Packing.of!("Emily.QuantizedWeight.to_dense/1", weight)
    Dequantize.run(packing, weight, Packing.type(packing, weight.scales))
  end

  defp options!(fun, opts) do
    defaults = [mode: "affine", group_size: nil, bits: nil, transpose: true]

    unless Keyword.keyword?(opts),
      do: Packing.fail!(fun, "expects its options as a keyword list, got: #{inspect(opts)}")

    case Keyword.keys(opts) -- Keyword.keys(defaults) do
      [] ->
        :ok

      [key | _] ->
        Packing.fail!(
          fun,
          "has no option #{inspect(key)}, or got it twice; it takes #{inspect(Keyword.keys(defaults))}"
        )
    end

    opts = Keyword.merge(defaults, opts)

    unless is_boolean(opts[:transpose]),
      do:
        Packing.fail!(
          fun,
          "expects transpose to be true or false, got: #{inspect(opts[:transpose])}"
        )

    opts
  end

  defp dense!(fun, %Nx.Tensor{data: %Nx.Defn.Expr{}}, _packing),
    do: Packing.fail!(fun, "packs tensors outside of defn, got an expression of one")

  defp dense!(fun, %Nx.Tensor{} = w, packing) do
    got = Packing.describe(w)

    cond do
      w.vectorized_axes != [] ->
        Packing.fail!(fun, "does not take a vectorized w (use Nx.devectorize/2), got #{got}")

      w.type not in [{:f, 32}, {:f, 16}, {:bf, 16}] ->
        Packing.fail!(fun, "expects w of type f32, f16 or bf16, got #{got}")

      tuple_size(w.shape) < 2 ->
        Packing.fail!(fun, "expects w of rank 2 or more, got #{got}")

      rem(Packing.last(w.shape), packing.group_size) != 0 ->
        Packing.fail!(
          fun,
          "expects the last axis of w to be a multiple of group_size #{packing.group_size}, got #{got}"
        )

      true ->
        :ok
    end
  end

  defp dense!(fun, w, _packing),
    do: Packing.fail!(fun, "expects w to be a tensor, got: #{inspect(w)}")

  defp tensor(ref, device) do
    template = Nx.template(Native.shape(ref), Native.dtype(ref))
    %{template | data: struct!(Emily.Backend, ref: ref, device: device)}
  end
end

# Axon counts and lists the parameters of a model as maps of tensors in maps.
defimpl Enumerable, for: Emily.QuantizedWeight do
  def reduce(weight, acc, fun), do: Enumerable.List.reduce(tensors(weight), acc, fun)
  def count(weight), do: {:ok, length(tensors(weight))}
  def member?(weight, entry), do: {:ok, entry in tensors(weight)}
  def slice(_weight), do: {:error, __MODULE__}

  defp tensors(weight),
    do: for(name <- [:value, :scales, :biases], do: {to_string(name), Map.fetch!(weight, name)})
end
