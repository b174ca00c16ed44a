defmodule Emily.Lower do
  @moduledoc """
  What each Nx operation means in MLX.

  `op/3` answers an expression (see `Emily.Expr`) for one operation of Nx. It is pure: it looks at
  shapes, types and options, never at data, so that an eager call and a compiled program mean the
  same. The families live in `lib/emily/lower/`, one file each; a new operation is a clause of
  `lower/3` there and its name in `names/0`.

  Instead of an expression, a lowering may answer

    * `:default` - Nx's own composition of other operations does it, which stays in MLX
    * `{:fallback, reason}` - MLX cannot do this, and the reason is why; `Emily.Fallback` computes it
      with `Nx.BinaryBackend`
  """

  alias Emily.Lower.{
    Conv,
    Dot,
    Elementwise,
    FFT,
    Index,
    LinAlg,
    Reduce,
    Scan,
    Shape,
    Sort,
    Window
  }

  @families [
    Elementwise,
    Elementwise.Functions,
    Reduce,
    Reduce.Fold,
    Scan,
    Shape,
    Dot,
    Index,
    Sort,
    Window,
    Conv,
    FFT,
    LinAlg
  ]

  # What gives numbers of the type that it takes. Nx's evaluator hands over a tensor of another type than the expression
  # says where that is the gradient of a loop, whose type Nx does not follow.
  @keep [
          :reshape,
          :squeeze,
          :broadcast,
          :transpose,
          :reverse,
          :slice,
          :gather,
          :take,
          :take_along_axis
        ] ++
          [
            :sort,
            :reduce_max,
            :reduce_min,
            :window_max,
            :window_min,
            :cumulative_max,
            :cumulative_min
          ] ++
          [:round, :sign]

  @type answer :: Emily.Expr.t() | :default | {:fallback, String.t()}

  @doc "The names that `op/3` knows."
  @spec names() :: [atom]
  def names, do: unquote(Enum.flat_map(@families, & &1.names()))

  @doc """
  The meaning of the operation `name`.

  `out` is the template of the result, or a tuple of templates; `args` are the arguments of Nx's
  callback, with tensors whose data hold an operand as `ref`.
  """
  @spec op(atom, Nx.Tensor.t() | tuple, [term]) :: answer
  for name <- @keep do
    def op(unquote(name), %{type: type} = out, [%{type: other} = tensor | rest])
        when type != other do
      data = %{tensor.data | ref: cast(tensor, type)}
      op(unquote(name), out, [%{tensor | type: type, data: data} | rest])
    end
  end

  for family <- @families, name <- family.names() do
    def op(unquote(name), out, args), do: unquote(family).lower(unquote(name), out, args)
  end

  @doc "The operand of a tensor."
  @spec value(%Nx.Tensor{}) :: Emily.Expr.t()
  defdelegate value(tensor), to: Emily.Lower.Types

  @doc "The operand of a tensor, cast to a type."
  @spec cast(%Nx.Tensor{}, Nx.Type.t()) :: Emily.Expr.t()
  defdelegate cast(tensor, type), to: Emily.Lower.Types

  @doc "The MLX dtype of an Nx type. Raises `ArgumentError` for a type that MLX lacks."
  @spec dtype(Nx.Type.t()) :: atom
  defdelegate dtype(type), to: Emily.Lower.Types

  @doc """
  Whether MLX has an Nx type.

      iex> {Emily.Lower.type?({:bf, 16}), Emily.Lower.type?({:c, 128})}
      {true, false}
  """
  @spec type?(Nx.Type.t()) :: boolean
  defdelegate type?(type), to: Emily.Lower.Types

  @doc """
  The meaning of a block of Nx 0.12 and later: `struct` says which, as `Nx.block/4` does.

  The names are those of the callbacks of Nx 0.11.
  """
  @spec block(struct, Nx.Tensor.t() | tuple, [term]) :: answer
  def block(struct, out, args) do
    case block_op(struct) do
      {name, opts} -> op(name, out, args ++ opts)
      nil -> Emily.Lower.Fast.block(struct, out, args)
    end
  end

  @doc """
  The meaning of what Nx 0.11 asks a backend for by name, if it knows it: an operation, or a kernel of
  `Emily.Fast`.
  """
  @spec optional(atom, Nx.Tensor.t() | tuple, [term]) :: answer
  def optional(name, out, args) do
    cond do
      name in names() ->
        op(name, out, args)

      Keyword.has_key?(Emily.Fast.Node.callbacks(), name) ->
        {tensors, [opts]} = Enum.split(args, -1)
        Emily.Lower.Fast.block(Emily.Fast.Node.kernel(name, opts), out, tensors)

      true ->
        :default
    end
  end

  defp block_op(%{__struct__: Nx.Block.LogicalNot}), do: {:logical_not, []}
  defp block_op(%{__struct__: Nx.Block.Phase}), do: {:phase, []}
  defp block_op(%{__struct__: Nx.Block.LinAlg.Cholesky}), do: {:cholesky, []}
  defp block_op(%{__struct__: Nx.Block.LinAlg.Solve}), do: {:solve, []}
  defp block_op(%{__struct__: Nx.Block.LinAlg.Determinant}), do: {:determinant, []}

  for {block, name} <- [
        {Nx.Block.LinAlg.QR, :qr},
        {Nx.Block.LinAlg.Eigh, :eigh},
        {Nx.Block.LinAlg.SVD, :svd},
        {Nx.Block.LinAlg.LU, :lu},
        {Nx.Block.CumulativeSum, :cumulative_sum},
        {Nx.Block.CumulativeProduct, :cumulative_product},
        {Nx.Block.CumulativeMax, :cumulative_max},
        {Nx.Block.CumulativeMin, :cumulative_min},
        {Nx.Block.Take, :take},
        {Nx.Block.TakeAlongAxis, :take_along_axis},
        {Nx.Block.TopK, :top_k},
        {Nx.Block.FFT2, :fft2},
        {Nx.Block.IFFT2, :ifft2},
        {Nx.Block.RFFT, :rfft},
        {Nx.Block.IRFFT, :irfft}
      ] do
    defp block_op(%{__struct__: unquote(block)} = struct) do
      {unquote(name), [struct |> Map.from_struct() |> Map.to_list()]}
    end
  end

  defp block_op(_struct), do: nil
end
