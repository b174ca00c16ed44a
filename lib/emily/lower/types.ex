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

  @doc "The operand of a tensor, cast to an Nx type."
  def cast(%{type: type, data: %{ref: ref}}, type), do: ref
  def cast(%{type: from, data: %{ref: ref}}, type), do: convert(ref, from, type)

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

  @doc "Whether a type is an integer."
  defguard is_integer_type(type) when :erlang.element(1, type) in [:s, :u]
end
