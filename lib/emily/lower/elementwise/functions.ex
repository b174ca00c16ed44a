defmodule Emily.Lower.Elementwise.Functions do
  @moduledoc false
  # Functions of analysis. Complex numbers take another way where MLX's own is missing or less precise.

  import Emily.Lower.Types
  import Emily.Expr, only: [scalar: 2]

  @functions [
    exp: :exp,
    expm1: :expm1,
    log: :log,
    log1p: :log1p,
    sigmoid: :sigmoid,
    cos: :cos,
    sin: :sin,
    tan: :tan,
    cosh: :cosh,
    sinh: :sinh,
    tanh: :tanh,
    acos: :arccos,
    asin: :arcsin,
    atan: :arctan,
    acosh: :arccosh,
    asinh: :arcsinh,
    atanh: :arctanh,
    sqrt: :sqrt,
    rsqrt: :rsqrt,
    erf: :erf,
    erfc: :erfc,
    erf_inv: :erfinv,
    cbrt: :cbrt
  ]

  def names, do: Keyword.keys(@functions)

  def lower(:expm1, %{type: {:c, 64} = type}, [tensor]) do
    {:subtract, {:exp, cast(tensor, type)}, scalar(1, :c64)}
  end

  def lower(:sigmoid, %{type: {:c, 64} = type}, [tensor]) do
    reciprocal({:add, scalar(1, :c64), {:exp, {:negative, cast(tensor, type)}}}, :c64)
  end

  def lower(:rsqrt, %{type: {:c, 64} = type}, [tensor]) do
    reciprocal({:sqrt, cast(tensor, type)}, :c64)
  end

  def lower(name, %{type: {:c, 64}} = out, args)
      when name in [:acos, :acosh, :asin, :asinh, :atanh, :cbrt],
      do: Emily.Lower.ComplexMath.lower(name, out, args)

  for {name, op} <- @functions do
    def lower(unquote(name), %{type: type}, [tensor]), do: {unquote(op), cast(tensor, type)}
  end

  defp reciprocal(x, dtype), do: {:divide, scalar(1, dtype), x}
end
