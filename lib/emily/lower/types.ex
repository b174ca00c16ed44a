defmodule Emily.Lower.Types do
  @moduledoc false
  # Nx types as MLX dtypes, and casts that mean what Nx means.

  alias Emily.Expr

  @dtypes %{
    {:u, 8} => :u8,
    {:u, 16} => :u16,
    {:u, 32} => :u32,
    {:u, 64} => :u64,
    {:s, 8} => :s8,
    {:s, 16} => :s16,
    {:s, 32} => :s32,
    {:s, 64} => :s64,
    {:f, 16} => :f16,
    {:bf, 16} => :bf16,
    {:f, 32} => :f32,
    {:f, 64} => :f64,
    {:c, 64} => :c64
  }

  @doc "The MLX dtype of an Nx type; raises for the types that MLX lacks."
  for {type, dtype} <- @dtypes do
    def dtype(unquote(type)), do: unquote(dtype)
  end

  def dtype(type) do
    raise ArgumentError,
          "Emily has no type #{Nx.Type.to_string(type)}: MLX holds u8 to u64, s8 to s64, f16, " <>
            "bf16, f32, f64 (on the CPU) and c64. Cast the tensor with Nx.as_type/2"
  end

  @doc "Whether MLX has a type."
  for type <- Map.keys(@dtypes) do
    def type?(unquote(type)), do: true
  end

  def type?(_type), do: false

  @doc "The operand of a tensor: an array's reference or an expression."
  def value(%{data: %{ref: ref}}), do: ref

  @doc """
  The operand of a tensor, cast to an Nx type.

  What has no axes is taken for a number of the caller's code: it becomes bf16 as `number/3` has it, in an eager
  call, where it is an array, as in a compiled program, where it is a constant.
  """
  def cast(%{type: type, data: %{ref: ref}}, type), do: ref

  def cast(%{shape: {}, type: {kind, _} = from, data: %{ref: ref}}, {:bf, 16}) when kind != :c,
    do: cut(ref, from)

  def cast(%{type: from, data: %{ref: ref}}, type), do: convert(ref, from, type)

  @doc "A number as `Nx.tensor/2` makes it: bf16 is cut off, everything else rounds to the nearest."
  def number(shape, number, {:bf, 16}) when is_number(number),
    do: Expr.full(shape, cut(number), :bf16)

  # The float in between that other ways go by would round twice.
  def number(shape, number, {:f, 16}) when is_number(number) do
    case <<number::float-16>> do
      <<half::float-16>> -> Expr.full(shape, half, :f16)
      <<0::1, _::15>> -> Expr.full(shape, :infinity, :f16)
      <<1::1, _::15>> -> Expr.full(shape, :neg_infinity, :f16)
    end
  end

  def number(shape, number, type), do: Expr.full(shape, number, dtype(type))

  defp cut(number) do
    <<high::16, _::16>> = <<number::float-32>>

    case <<high::16, 0::16>> do
      <<float::float-32>> -> float
      <<0::1, _::31>> -> :infinity
      <<1::1, _::31>> -> :neg_infinity
    end
  end

  # f32 has all integers up to here.
  @exact Bitwise.bsl(1, 24)

  @doc """
  An expression of type `from` as bf16, by cutting off: an f32 whose lower half is empty is one.
  """
  def cut({:full, shape, number, _}, _from)
      when is_float(number) or number in -@exact..@exact//1,
      do: number(shape, number, {:bf, 16})

  def cut(expr, from) do
    bits = {:view, convert(expr, from, {:f, 32}), :u32}
    {:astype, {:view, {:bitwise_and, bits, Expr.scalar(0xFFFF0000, :u32)}, :f32}, :bf16}
  end

  @doc """
  An expression of type `from` cast to `to`.

  As in Nx.BinaryBackend a float becomes an integer by truncation, with the bits above the type's
  width lost; NaN becomes zero and the infinities the ends of the type's range.
  """
  def convert(expr, type, type), do: expr

  # A number of the caller's code is made in the type that it is needed in.
  def convert({:full, shape, number, _} = expr, {kind, bits}, {to, _} = type)
      when is_integer(number) and kind in [:s, :u] and to in [:f, :bf, :c] do
    {low, high} = integer_range(kind, bits)

    if number in low..high,
      do: Expr.full(shape, number, dtype(type)),
      else: {:astype, expr, dtype(type)}
  end

  def convert(expr, {:c, 64}, to), do: convert({:real, expr}, {:f, 32}, to)

  def convert(expr, {from, _}, {to, _} = target) when from in [:f, :bf] and to in [:s, :u],
    do: {:to_integer, expr, dtype(target)}

  def convert(expr, _from, to), do: {:astype, expr, dtype(to)}

  @doc "The least and the greatest integer of a type."
  def integer_range(:u, bits), do: {0, Bitwise.bsl(1, bits) - 1}
  def integer_range(:s, bits), do: {-Bitwise.bsl(1, bits - 1), Bitwise.bsl(1, bits - 1) - 1}

  @doc "An expression as a condition: what is not zero. NaN is true."
  # The compiler hands on what `from_bool/2` gave.
  def truthy({:view, {:var, _} = condition, :u8}, {:u, 8}), do: condition
  def truthy(expr, {:c, 64}), do: {:not_equal, expr, Expr.scalar(0, :c64)}
  def truthy(expr, _type), do: {:astype, expr, :bool}

  @doc "A condition as the number that Nx gives for it. MLX keeps it as a byte that is 0 or 1."
  def from_bool(expr, %{type: {:u, 8}}), do: {:view, expr, :u8}
  def from_bool(expr, %{type: type}), do: {:astype, expr, dtype(type)}

  @doc """
  The type in which sums and products accumulate: the half-precision floats lose every addend
  beyond a few thousand when they accumulate in their own type.
  """
  def accumulator({kind, 16}) when kind in [:f, :bf], do: {:f, 32}
  def accumulator(type), do: type

  @doc """
  The type in which an operation with a result of `type` takes these operands: integers that a half-precision
  float would round before they are used go into f32 with all else.
  """
  def operands({kind, 16} = type, tensors) when kind in [:f, :bf] do
    if Enum.any?(tensors, &rounds?/1), do: {:f, 32}, else: type
  end

  def operands(type, _tensors), do: type

  defp rounds?(%{shape: shape, type: {kind, bits}}),
    do: kind in [:s, :u] and bits > 8 and shape != {}

  @doc """
  What a sum or a product reads: MLX's own, of f64 and c64, are taken in the order in which the elements lie, which is
  another one in a view than in a copy of it, and rounded at each step.
  """
  def in_order(x, type) when type in [{:f, 64}, {:c, 64}], do: {:contiguous, x}
  def in_order(x, _type), do: x

  @doc """
  Complex numbers as two of f32 each, on an axis behind those of sizes `dims`: MLX adds complex numbers in f32, in the order in
  which they lie; as two numbers they are added as those of f32 are.
  """
  def parts(x, dims), do: {:view, {:reshape, x, dims ++ [1]}, :f32}

  @doc "What `parts/2` took apart; the axes have the sizes `dims` again."
  def whole(parts, dims), do: {:reshape, {:view, parts, :c64}, dims}

  @doc "A sum that starts at zero: what adds nothing but negative zeros is zero."
  def from_zero(sum, {kind, _} = type) when kind in [:f, :bf, :c],
    do: {:add, sum, Expr.scalar(0, dtype(type))}

  def from_zero(sum, _type), do: sum

  @doc "Whether a type is an integer."
  defguard is_integer_type(type) when :erlang.element(1, type) in [:s, :u]
end
