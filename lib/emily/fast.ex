defmodule Emily.Fast do
  @moduledoc """
  Transformer kernels that MLX runs fused.

  | function | kernel of MLX |
  |---|---|
  | `rms_norm/3` | `fast::rms_norm` |
  | `layer_norm/4` | `fast::layer_norm` |
  | `rope/3` | `fast::rope`, frequencies from a base |
  | `rope_with_freqs/4` | `fast::rope`, frequencies from a table |
  | `gelu/2` | none: a kernel of Emily's |
  | `swiglu/2`, `geglu/3` | none: a kernel of Emily's |
  | `scaled_dot_product_attention/4` | `fast::scaled_dot_product_attention`, no mask or a causal one |
  | `scaled_dot_product_attention_with_mask/5` | the same with an additive mask |
  | `einsum/2` | `einsum`, one for each contraction |

  All work on tensors, in `Nx.Defn.jit/2` and inside a `defn` of one's own:

      defn block(x, w, b) do
        x
        |> Emily.Fast.layer_norm(w, b, eps: 1.0e-5)
        |> Nx.multiply(0.5)
      end

  On `Emily.Backend` such a call is one kernel of MLX. On any other backend it runs as the same
  formula composed of `Nx` functions, so a model that calls these functions stays portable, and
  `Nx.Defn.grad/2` differentiates through that composition on every backend. `einsum/2` alone wants
  its tensors on `Emily.Backend` where it is called outside of `defn`.

  ## Types

  The first tensor (`x`, `gate` or `q`) is f32, f16 or bf16, and the result has its type. f64 is accepted
  where the backend has it, though MLX computes norms and rotations of f64 in f32. Other float
  tensors (`weight`, `bias`, `up`, `k`, `v`, a mask, sinks) may be of another type and are taken in the
  type of the first. The composed forms compute in f32 and round once at the end; MLX may round
  f16 and bf16 in between as well. `einsum/2` has types of its own.

  ## Names and vectorized axes

  The result has the axis names of the first tensor, that of `einsum/2` none. `x` of the norms, the rotations and of GELU may be
  vectorized; nothing else may.

  ## Errors

  Wrong ranks, sizes, types and options raise an `ArgumentError` that names the function, the
  argument and what was got; inside `Nx.Defn.jit/2` and `defn` when the function is traced.
  """

  import Nx.Defn, only: [deftransform: 2]
  import Emily.Fast.Check

  alias Emily.Fast.{Activation, Attention, Einsum, Gate, LayerNorm, Node, RMSNorm, RoPE}

  @doc """
  Root mean square norm of the last axis: `x * rsqrt(mean(x²) + eps) * weight`.

  `x` has any shape of rank 1 or more, `weight` has shape `{d}` where `d` is the size of the last
  axis of `x`. The result has the shape and the type of `x`.

  ## Options

    * `:eps` - a number, not negative, added to the mean of the squares. Defaults to `1.0e-6`

  The formula is that of [Root Mean Square Layer Normalization](https://arxiv.org/abs/1910.07467).

  ## Examples

      iex> x = Nx.tensor([[1.0, 2.0, 3.0, 4.0]], backend: Emily.Backend)
      iex> w = Nx.tensor([1.0, 1.0, 1.0, 1.0], backend: Emily.Backend)
      iex> y = Nx.Defn.jit_apply(
      ...>   fn x, w -> Emily.Fast.rms_norm(x, w, eps: 1.0e-5) end,
      ...>   [x, w]
      ...> )
      iex> Nx.shape(y)
      {1, 4}

      iex> Emily.Fast.rms_norm(Nx.tensor([3.0, 4.0]), Nx.tensor([1.0]))
      ** (ArgumentError) Emily.Fast.rms_norm/3 expects weight of shape {2} (the last axis of x), got shape {1} and type f32
  """
  @spec rms_norm(Nx.Tensor.t(), Nx.Tensor.t(), keyword()) :: Nx.Tensor.t()
  deftransform rms_norm(x, weight, opts \\ []) do
    fun = "rms_norm/3"
    opts = options!(fun, opts, eps: 1.0e-6)
    eps = non_negative!(fun, opts, :eps)

    weight = tensor!(fun, "weight", weight)
    not_vectorized!(fun, weight: weight)

    keeping_axes(fun, x, 1, fn x ->
      affine!(fun, "weight", weight, x)
      Node.emit(%RMSNorm{eps: eps}, [x, weight], like(x))
    end)
  end

  @doc """
  Layer norm of the last axis: `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, the variance
  being that of the whole axis (divided by its size).

  `x` has any shape of rank 1 or more, `weight` and `bias` have shape `{d}` where `d` is the size
  of the last axis of `x`. The result has the shape and the type of `x`.

  ## Options

    * `:eps` - a number, not negative, added to the variance. Defaults to `1.0e-5`

  The formula is that of [Layer Normalization](https://arxiv.org/abs/1607.06450).

  ## Examples

      iex> x = Nx.tensor([[1.0, 2.0, 3.0, 4.0]], backend: Emily.Backend)
      iex> w = Nx.tensor([1.0, 1.0, 1.0, 1.0], backend: Emily.Backend)
      iex> b = Nx.tensor([0.0, 0.0, 0.0, 0.0], backend: Emily.Backend)
      iex> y = Nx.Defn.jit_apply(
      ...>   fn x, w, b -> Emily.Fast.layer_norm(x, w, b, eps: 1.0e-5) end,
      ...>   [x, w, b]
      ...> )
      iex> Nx.shape(y)
      {1, 4}
  """
  @spec layer_norm(Nx.Tensor.t(), Nx.Tensor.t(), Nx.Tensor.t(), keyword()) :: Nx.Tensor.t()
  deftransform layer_norm(x, weight, bias, opts \\ []) do
    fun = "layer_norm/4"
    opts = options!(fun, opts, eps: 1.0e-5)
    eps = non_negative!(fun, opts, :eps)

    weight = tensor!(fun, "weight", weight)
    bias = tensor!(fun, "bias", bias)
    not_vectorized!(fun, weight: weight, bias: bias)

    keeping_axes(fun, x, 1, fn x ->
      affine!(fun, "weight", weight, x)
      affine!(fun, "bias", bias, x)
      Node.emit(%LayerNorm{eps: eps}, [x, weight, bias], like(x))
    end)
  end

  @doc """
  The Gaussian error linear unit: `x * (1 + erf(x / sqrt(2))) / 2`, or nearly so by `tanh`.

  `x` has any shape. The result has the shape and the type of `x`.

  ## Options

    * `:approximation` - `:none` for the formula above, or `:tanh` for
      `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x³))) / 2`, which models have that were trained with it (their
      configurations call it `gelu_new` or `gelu_pytorch_tanh`). Defaults to `:none`

  The formulas are those of [Gaussian Error Linear Units](https://arxiv.org/abs/1606.08415).

  ## Examples

      iex> x = Nx.tensor([-1.0, 0.0, 1.0], backend: Emily.Backend)
      iex> Emily.Fast.gelu(x) |> Nx.to_list() |> Enum.map(&Float.round(&1, 4))
      [-0.1587, 0.0, 0.8413]
      iex> Emily.Fast.gelu(x, approximation: :tanh) |> Nx.to_list() |> Enum.map(&Float.round(&1, 4))
      [-0.1588, 0.0, 0.8412]
  """
  @spec gelu(Nx.Tensor.t(), keyword()) :: Nx.Tensor.t()
  deftransform gelu(x, opts \\ []) do
    fun = "gelu/2"
    name = gelu!(fun, opts)
    keeping_axes(fun, x, 0, fn x -> Node.emit(%Activation{name: name}, [x], like(x)) end)
  end

  @doc """
  The gate of Swish: `gate * sigmoid(gate) * up`.

  `gate` and `up` have one shape, any. The result has it, and the type of `gate`.

  The formula is that of [GLU Variants Improve Transformer](https://arxiv.org/abs/2002.05202), the products with
  weights left to the caller.

  ## Examples

      iex> gate = Nx.tensor([-1.0, 0.0, 1.0], backend: Emily.Backend)
      iex> up = Nx.tensor([2.0, 2.0, 2.0], backend: Emily.Backend)
      iex> Emily.Fast.swiglu(gate, up) |> Nx.to_list() |> Enum.map(&Float.round(&1, 4))
      [-0.5379, 0.0, 1.4621]
  """
  @spec swiglu(Nx.Tensor.t(), Nx.Tensor.t()) :: Nx.Tensor.t()
  deftransform swiglu(gate, up), do: gated("swiglu/2", gate, up, :silu)

  @doc """
  The gate of GELU: `gelu(gate) * up`, see `gelu/2`.

  `gate` and `up` have one shape, any. The result has it, and the type of `gate`.

  ## Options

    * `:approximation` - see `gelu/2`. Defaults to `:none`

  The formula is that of [GLU Variants Improve Transformer](https://arxiv.org/abs/2002.05202), the products with
  weights left to the caller.

  ## Examples

      iex> gate = Nx.tensor([-1.0, 0.0, 1.0], backend: Emily.Backend)
      iex> up = Nx.tensor([2.0, 2.0, 2.0], backend: Emily.Backend)
      iex> Emily.Fast.geglu(gate, up) |> Nx.to_list() |> Enum.map(&Float.round(&1, 4))
      [-0.3173, 0.0, 1.6827]
  """
  @spec geglu(Nx.Tensor.t(), Nx.Tensor.t(), keyword()) :: Nx.Tensor.t()
  deftransform geglu(gate, up, opts \\ []) do
    fun = "geglu/3"
    gated(fun, gate, up, gelu!(fun, opts))
  end

  @doc """
  Rotary position embedding, its frequencies a geometric progression.

  `x` has rank 3 or more: `{..., positions, head_dim}`. Positions run along axis -2, so a tensor
  `{batch, positions, heads, head_dim}` has to be transposed first. `offset`, a scalar of any
  integer type, is the position of the first row: 0 for a whole prompt, the length of the cache
  when decoding. An `offset` of shape `{batch}`, the first axis of `x`, gives each entry of that
  axis a position of its own. The result has the shape and the type of `x`.

  In row `t`, pair `i` of the first `:dims` entries is rotated by the angle
  `(offset + t) * scale * base ** (-2 * i / dims)`; the entries after them stay as they are.

  ## Options

    * `:dims` - how many entries of the last axis to rotate: even, positive, at most `head_dim`.
      Required
    * `:traditional` - which entries make a pair. When `true`, neighbours: `2 * i` and `2 * i + 1`
      (the layout of Meta's Llama). When `false`, the halves: `i` and `i + dims / 2` (the layout of
      Hugging Face's models). Defaults to `false`
    * `:base` - a positive number, the base of the progression. Defaults to `10_000.0`
    * `:scale` - a number by which positions are multiplied. Defaults to `1.0`

  The formula is that of [RoFormer](https://arxiv.org/abs/2104.09864). For models that scale the
  frequencies one by one, see `rope_with_freqs/4`.

  ## Examples

      iex> x = Nx.iota({1, 1, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> offset = Nx.tensor(0, backend: Emily.Backend)
      iex> y = Nx.Defn.jit_apply(
      ...>   fn x, o -> Emily.Fast.rope(x, o, dims: 8) end,
      ...>   [x, offset]
      ...> )
      iex> Nx.shape(y)
      {1, 1, 4, 8}
  """
  @spec rope(Nx.Tensor.t(), Nx.Tensor.t() | integer(), keyword()) :: Nx.Tensor.t()
  deftransform rope(x, offset, opts) do
    fun = "rope/3"
    opts = options!(fun, opts, dims: :required, traditional: false, base: 10_000.0, scale: 1.0)
    base = positive!(fun, opts, :base)

    rotate(fun, x, offset, [], opts, base)
  end

  @doc """
  Rotary position embedding with a table of inverse frequencies, for models that scale them one by
  one (Llama 3, LongRoPE, linear and dynamic scaling).

  `freqs` has shape `{dims / 2}` and type f32. In row `t`, pair `i` is rotated by the angle
  `(offset + t) * scale * freqs[i]`: a table `freqs[i] = base ** (-2 * i / dims)` gives what
  `rope/3` gives. `x`, `offset` and the result are those of `rope/3`.

  ## Options

    * `:dims` - how many entries of the last axis to rotate: even, positive, at most `head_dim`.
      Required
    * `:traditional` - which entries make a pair, see `rope/3`. Defaults to `false`
    * `:scale` - a number by which positions are multiplied. Defaults to `1.0`

  ## Examples

      iex> x = Nx.iota({1, 1, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> offset = Nx.tensor(0, backend: Emily.Backend)
      iex> freqs = Nx.tensor([1.0, 0.1, 0.01, 0.001], backend: Emily.Backend)
      iex> y = Nx.Defn.jit_apply(
      ...>   fn x, o, f -> Emily.Fast.rope_with_freqs(x, o, f, dims: 8) end,
      ...>   [x, offset, freqs]
      ...> )
      iex> Nx.shape(y)
      {1, 1, 4, 8}
  """
  @spec rope_with_freqs(Nx.Tensor.t(), Nx.Tensor.t() | integer(), Nx.Tensor.t(), keyword()) ::
          Nx.Tensor.t()
  deftransform rope_with_freqs(x, offset, freqs, opts) do
    fun = "rope_with_freqs/4"
    opts = options!(fun, opts, dims: :required, traditional: false, scale: 1.0)
    freqs = tensor!(fun, "freqs", freqs)
    not_vectorized!(fun, freqs: freqs)

    rotate(fun, x, offset, [freqs], opts, nil)
  end

  @doc """
  Attention of queries over keys and values: `softmax(q · kᵀ * scale) · v`, without a mask or with
  a causal one.

    * `q` - `{batch, heads, q_len, head_dim}`
    * `k` - `{batch, kv_heads, k_len, head_dim}`
    * `v` - `{batch, kv_heads, k_len, v_head_dim}`

  `kv_heads` divides `heads`; where there are fewer, query head `i` uses key and value head
  `div(i, div(heads, kv_heads))`. The result is `{batch, heads, q_len, v_head_dim}`, of q's type.

  ## Options

    * `:scale` - a number by which `q · kᵀ` is multiplied before the softmax. Defaults to
      `1 / sqrt(head_dim)`
    * `:causal` - when `true`, a query sees no key that comes after it. Where `q_len` and `k_len`
      differ, the last query stands at the last key: query `i` sees the keys `j` with
      `j <= i + k_len - q_len`. A query that sees no key at all gets the mean of all values on a
      CPU; do not rely on it. Defaults to `false`
    * `:sinks` - a tensor of shape `{heads}`, or one that broadcasts to `{1, heads, 1, 1}`. Each
      head's sink is one more score in the denominator of the softmax and adds nothing to the
      numerator. Defaults to `nil`, no sinks

  The formulas are those of [Attention Is All You Need](https://arxiv.org/abs/1706.03762) and, for
  the sinks, of [StreamingLLM](https://arxiv.org/abs/2309.17453).

  ## Examples

      iex> q = Nx.iota({1, 2, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> k = Nx.iota({1, 2, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> v = Nx.iota({1, 2, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> y = Nx.Defn.jit_apply(
      ...>   fn q, k, v -> Emily.Fast.scaled_dot_product_attention(q, k, v) end,
      ...>   [q, k, v]
      ...> )
      iex> Nx.shape(y)
      {1, 2, 4, 8}
  """
  @spec scaled_dot_product_attention(Nx.Tensor.t(), Nx.Tensor.t(), Nx.Tensor.t(), keyword()) ::
          Nx.Tensor.t()
  deftransform scaled_dot_product_attention(q, k, v, opts \\ []) do
    fun = "scaled_dot_product_attention/4"
    opts = options!(fun, opts, scale: nil, causal: false, sinks: nil)

    attend(fun, q, k, v, nil, opts, boolean!(fun, opts, :causal))
  end

  @doc """
  Attention with an additive mask: `softmax(q · kᵀ * scale + mask) · v`.

  `q`, `k`, `v` and the result are those of `scaled_dot_product_attention/4`. `mask` broadcasts to
  `{batch, heads, q_len, k_len}`, as `{q_len, k_len}`, `{1, 1, q_len, k_len}` and
  `{batch, 1, 1, k_len}` do, and is of any float or integer type.

  The mask is always added, whatever its type: 0 leaves a score as it is, and
  `Nx.Constants.min_finite/1` hides a key. A mask of ones and zeros, as comparisons give it, hides
  nothing; turn it into an additive one first:

      Nx.select(visible, 0.0, Nx.Constants.min_finite(:f32))

  The mask is taken in q's type, and values beyond that type become large finite ones. So a row
  that hides every key with `Nx.Constants.min_finite/1` has a finite result, some mean of the
  values, in every type. A row of nothing but negative infinities has no result, and may give NaN.

  ## Options

    * `:scale` - a number by which `q · kᵀ` is multiplied before the mask is added. Defaults to
      `1 / sqrt(head_dim)`
    * `:sinks` - see `scaled_dot_product_attention/4`. Defaults to `nil`, no sinks

  There is no `:causal` here: put it into the mask.

  ## Examples

      iex> q = Nx.iota({1, 2, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> k = Nx.iota({1, 2, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> v = Nx.iota({1, 2, 4, 8}, backend: Emily.Backend, type: :f32)
      iex> mask = Nx.broadcast(Nx.tensor(0.0), {1, 1, 4, 4}) |> Nx.backend_transfer(Emily.Backend)
      iex> y = Nx.Defn.jit_apply(
      ...>   fn q, k, v, m -> Emily.Fast.scaled_dot_product_attention_with_mask(q, k, v, m) end,
      ...>   [q, k, v, mask]
      ...> )
      iex> Nx.shape(y)
      {1, 2, 4, 8}
  """
  @spec scaled_dot_product_attention_with_mask(
          Nx.Tensor.t(),
          Nx.Tensor.t(),
          Nx.Tensor.t(),
          Nx.Tensor.t(),
          keyword()
        ) :: Nx.Tensor.t()
  deftransform scaled_dot_product_attention_with_mask(q, k, v, mask, opts \\ []) do
    fun = "scaled_dot_product_attention_with_mask/5"
    opts = options!(fun, opts, scale: nil, sinks: nil)

    attend(fun, q, k, v, tensor!(fun, "mask", mask), opts, false)
  end

  @doc """
  Einstein summation of any number of tensors, contracted in a cheap order.

  `subscripts` is an equation as NumPy's `einsum` takes it, such as `"ij,jk->ik"`: one group of
  letters for each operand, one letter an axis.

    * A letter that stands twice in one group takes the diagonal: `"ii->i"`
    * A letter that is missing after `->` is summed over: `"ij->i"`, and the trace `"ii->"`
    * Without `->` the result has the letters that stand once, in alphabetical order, capitals first
    * `...` stands for any number of axes without letters, which align at their ends and broadcast:
      `"...ij,...jk->...ik"`. They come first in a result that is not written
    * An axis of size 1 broadcasts to the size that its letter has elsewhere
    * A scalar has an empty group: `"i,->i"`. Spaces are ignored

  Letters are `a` to `z` and `A` to `Z`, so there are up to 52 different axes, those of the ellipsis
  included. There are up to 64 operands, as in NumPy.

  The operands are of float or complex types. The result has the type to which MLX promotes them:
  Nx's, but that f16 with bf16 gives f32, and f64 with c64 gives c64. It has no names.

  ## Where it runs

  Outside of `defn` the operands must be on `Emily.Backend`, all of one device.

  Inside `defn` and `Nx.Defn.jit/2` any backend and compiler runs it: on `Emily.Backend` as einsums of
  MLX, on another backend composed of `Nx.dot/6`, products and sums, which is also what
  `Nx.Defn.grad/2` differentiates. Vectorized operands are refused.

  ## Order and precision

  Two operands are contracted at a time. Up to six, in the order of the fewest multiplications; with
  more, each step takes the pair that leaves the least to store, as the greedy orders of NumPy and of
  [opt_einsum](https://doi.org/10.21105/joss.00753) do. More than 32 operands are no single node of a
  `defn`: their composition is traced.

  f16 and bf16 are added in f32. The composed form rounds to them once, at the end; MLX also after
  each contraction.

  ## Errors

  Raises `ArgumentError` with the equation and with the shapes and types of the operands where the
  equation is malformed, where sizes do not match it, where the result would have more than
  2,147,483,647 elements, and for operands of other types or places; inside `defn` when it is traced. More
  than 64 operands raise one with their number.

  ## Examples

      iex> a = Nx.iota({2, 3}, backend: Emily.Backend, type: :f32)
      iex> b = Nx.iota({3, 4}, backend: Emily.Backend, type: :f32)
      iex> y = Emily.Fast.einsum("ij,jk->ik", [a, b])
      iex> Nx.shape(y)
      {2, 4}

  A bilinear form for each row of a batch, in a function that any backend runs:

      iex> form = fn x, w, y -> Emily.Fast.einsum("bi,ij,bj->b", [x, w, y]) end
      iex> x = Nx.tensor([[1.0, 2.0], [3.0, 4.0]])
      iex> w = Nx.tensor([[1.0, 0.0], [0.0, -1.0]])
      iex> Nx.Defn.jit_apply(form, [x, w, x]) |> Nx.to_flat_list()
      [-3.0, -7.0]
      iex> Nx.Defn.jit_apply(form, [x, w, x], compiler: Emily.Compiler) |> Nx.to_flat_list()
      [-3.0, -7.0]

      iex> x = Nx.iota({2, 3}, backend: Emily.Backend, type: :f32)
      iex> Emily.Fast.einsum("ij,jk->ik", [x, x])
      ** (ArgumentError) Emily.Fast.einsum/2 got sizes 3 and 2 for axis "j", in "ij,jk->ik" with operands of shape {2, 3} and type f32; shape {2, 3} and type f32
  """
  @spec einsum(String.t(), [Nx.Tensor.t()]) :: Nx.Tensor.t()
  deftransform einsum(subscripts, operands), do: Einsum.run(subscripts, operands)

  ## Norms

  defp affine!(fun, name, tensor, x) do
    shape!(fun, name, tensor, {elem(x.shape, tuple_size(x.shape) - 1)}, "the last axis of x")
    float!(fun, name, tensor)
  end

  # Runs a kernel that keeps the shape of x: vectorized axes become leading ones for its time.
  defp keeping_axes(fun, x, min_rank, kernel) do
    x = tensor!(fun, "x", x)
    float!(fun, "x", x)
    min_rank!(fun, "x", x, min_rank)
    result = x |> Nx.devectorize(keep_names: false) |> kernel.()
    %{result | shape: x.shape, names: x.names, vectorized_axes: x.vectorized_axes}
  end

  defp like(x), do: Nx.template(x.shape, x.type, names: x.names)

  ## Gates

  defp gelu!(fun, opts) do
    case options!(fun, opts, approximation: :none)[:approximation] do
      :none -> :gelu
      :tanh -> :gelu_tanh
      other -> option!(fun, :approximation, ":none or :tanh", other)
    end
  end

  defp gated(fun, gate, up, activation) do
    [gate, up] = for {name, t} <- [{"gate", gate}, {"up", up}], do: tensor!(fun, name, t)
    not_vectorized!(fun, gate: gate, up: up)
    float!(fun, "gate", gate)
    float!(fun, "up", up)
    shape!(fun, "up", up, gate.shape, "that of gate")
    Node.emit(%Gate{activation: activation}, [gate, up], like(gate))
  end

  ## Rotations

  defp rotate(fun, x, offset, freqs, opts, base) do
    offset = tensor!(fun, "offset", offset)
    integer!(fun, "offset", offset)
    not_vectorized!(fun, offset: offset)

    keeping_axes(fun, x, 3, fn x ->
      offset!(fun, offset, x)
      dims = dims!(fun, opts[:dims], x)

      for table <- freqs do
        shape!(fun, "freqs", table, {div(dims, 2)}, "half of :dims")

        if table.type != {:f, 32},
          do: fail!(fun, "expects freqs of type f32, got #{describe(table)}")
      end

      kernel = %RoPE{
        dims: dims,
        traditional: boolean!(fun, opts, :traditional),
        base: base,
        scale: number!(fun, opts, :scale)
      }

      Node.emit(kernel, [x, offset | freqs], like(x))
    end)
  end

  defp offset!(fun, offset, x) do
    first = elem(x.shape, 0)

    unless offset.shape in [{}, {first}] do
      fail!(
        fun,
        "expects offset of shape {} (a scalar) or {#{first}} (the first axis of x), " <>
          "got #{describe(offset)}"
      )
    end
  end

  defp dims!(fun, dims, x) do
    head_dim = Nx.axis_size(x, -1)

    unless is_integer(dims) and dims > 0 and rem(dims, 2) == 0 and dims <= head_dim do
      got =
        if is_struct(dims, Nx.Tensor), do: "a tensor of #{describe(dims)}", else: inspect(dims)

      fail!(
        fun,
        "expects :dims to be an even positive integer, at most #{head_dim} (the last axis of x), " <>
          "got: #{got}"
      )
    end

    dims
  end

  ## Attention

  defp attend(fun, q, k, v, mask, opts, causal) do
    [q, k, v] = for {name, t} <- [{"q", q}, {"k", k}, {"v", v}], do: tensor!(fun, name, t)
    not_vectorized!(fun, q: q, k: k, v: v)

    for {name, tensor} <- [{"q", q}, {"k", k}, {"v", v}] do
      float!(fun, name, tensor)
      rank!(fun, name, tensor, 4, "{batch, heads, length, head_dim}")
    end

    {batch, heads, q_len, head_dim} = q.shape
    {_, kv_heads, k_len, v_dim} = v.shape

    shape!(fun, "k", k, {batch, kv_heads, k_len, head_dim}, "as q and v demand")
    shape!(fun, "v", v, {batch, kv_heads, k_len, v_dim}, "as q demands")

    if rem(heads, kv_heads) != 0 do
      fail!(
        fun,
        "expects the heads of k and v to divide those of q, got q of #{describe(q)} and " <>
          "k of #{describe(k)}"
      )
    end

    mask = mask && mask!(fun, mask, {batch, heads, q_len, k_len})
    sinks = opts[:sinks] && sinks!(fun, opts[:sinks], heads)
    scale = if opts[:scale] == nil, do: 1 / :math.sqrt(head_dim), else: number!(fun, opts, :scale)
    kernel = %Attention{scale: scale, causal: causal, mask: mask != nil, sinks: sinks != nil}

    tensors = Enum.reject([q, k, v, mask, sinks], &is_nil/1)
    out = Nx.template({batch, heads, q_len, v_dim}, q.type, names: q.names)
    Node.emit(kernel, tensors, out)
  end

  defp mask!(fun, mask, shape) do
    not_vectorized!(fun, mask: mask)
    real!(fun, "mask", mask)
    broadcasts!(fun, "mask", mask, shape, "batch, heads, q_len, k_len")
    mask
  end

  # The kernels take sinks of shape {heads}.
  defp sinks!(fun, sinks, heads) do
    sinks = tensor!(fun, ":sinks", sinks)
    not_vectorized!(fun, sinks: sinks)
    float!(fun, ":sinks", sinks)

    case sinks.shape do
      {^heads} ->
        sinks

      _ ->
        broadcasts!(fun, ":sinks", sinks, {1, heads, 1, 1}, "or to have shape {#{heads}}")
        sinks |> Nx.reshape({Nx.size(sinks)}) |> Nx.broadcast({heads})
    end
  end
end
