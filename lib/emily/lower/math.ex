defmodule Emily.Lower.Math do
  @moduledoc false
  # Functions of analysis. Complex numbers and f64 take another way where MLX's own is missing or
  # only as precise as f32.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]
  alias Emily.Lower.Erf64

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
    erf_inv: :erfinv
  ]

  def names, do: Keyword.keys(@functions) ++ [:cbrt, :erfc]

  # MLX's f64 versions of these are f32 inside.
  def lower(:exp, %{type: {:f, 64} = type}, [tensor]), do: exp64(cast(tensor, type))

  def lower(:sigmoid, %{type: {:f, 64} = type}, [tensor]) do
    reciprocal({:add, scalar(1, :f64), exp64({:negative, cast(tensor, type)})}, :f64)
  end

  def lower(:sin, %{type: {:f, 64} = type}, [tensor]) do
    half_tangent(cast(tensor, type), fn t, square ->
      {:divide, {:multiply, scalar(2, :f64), t}, {:add, scalar(1, :f64), square}}
    end)
  end

  def lower(:cos, %{type: {:f, 64} = type}, [tensor]) do
    one = scalar(1, :f64)

    half_tangent(cast(tensor, type), fn t, square ->
      {:divide, {:multiply, {:subtract, one, t}, {:add, one, t}}, {:add, one, square}}
    end)
  end

  def lower(:erf, %{type: {:f, 64} = type}, [tensor]), do: Erf64.erf(cast(tensor, type), &exp64/1)

  def lower(:erfc, %{type: {:f, 64} = type}, [tensor]),
    do: Erf64.erfc(cast(tensor, type), &exp64/1)

  def lower(:erf_inv, %{type: {:f, 64} = type}, [tensor]), do: Erf64.erf_inv(cast(tensor, type))

  def lower(:expm1, %{type: {:c, 64} = type}, [tensor]) do
    {:subtract, {:exp, cast(tensor, type)}, scalar(1, :c64)}
  end

  def lower(:sigmoid, %{type: {:c, 64} = type}, [tensor]) do
    reciprocal({:add, scalar(1, :c64), {:exp, {:negative, cast(tensor, type)}}}, :c64)
  end

  def lower(:rsqrt, %{type: {:c, 64} = type}, [tensor]) do
    reciprocal({:sqrt, cast(tensor, type)}, :c64)
  end

  def lower(name, %{type: {:c, 64}} = out, args) when name in [:acos, :asin, :atanh, :cbrt],
    do: Emily.Lower.ComplexMath.lower(name, out, args)

  def lower(:cbrt, %{type: type}, [tensor]), do: in_f32(tensor, type, &{:cbrt, &1})

  def lower(:erfc, %{type: type}, [tensor]),
    do: in_f32(tensor, type, &erfc(&1, dtype(accumulator(type))))

  for {name, op} <- @functions do
    def lower(unquote(name), %{type: type}, [tensor]), do: {unquote(op), cast(tensor, type)}
  end

  defp reciprocal(x, dtype), do: {:divide, scalar(1, dtype), x}

  # The steps of a composed function each round: the half-precision types round once, at the end.
  defp in_f32(tensor, type, fun) do
    wide = accumulator(type)

    tensor
    |> cast(wide)
    |> share(fun)
    |> convert(wide, type)
  end

  # Far below zero the square of the root's power, so that no intermediate step overflows.
  defp exp64(x) do
    one = scalar(1, :f64)

    share(x, fn x ->
      far = {:less, x, scalar(-700, :f64)}

      share({:where, far, {:multiply, x, scalar(0.5, :f64)}, x}, fn exponent ->
        power =
          share({:add, {:expm1, {:abs, exponent}}, one}, fn grown ->
            {:where, {:less, exponent, scalar(0, :f64)}, {:divide, one, grown}, grown}
          end)

        share(power, fn power -> {:where, far, {:square, power}, power} end)
      end)
    end)
  end

  defp half_tangent(x, fun) do
    share({:tan, {:multiply, x, scalar(0.5, :f64)}}, fn t -> fun.(t, {:square, t}) end)
  end

  # 1 - erf(x) loses every digit once erf(x) is near 1. The tail is Chebyshev's fit of
  # erfc(x) exp(x^2) in 1 / (1 + x / 2), whose relative error stays below 1.2e-7.
  @tail [
    0.17087277,
    -0.82215223,
    1.48851587,
    -1.13520398,
    0.27886807,
    -0.18628806,
    0.09678418,
    0.37409196,
    1.00002368,
    -1.26551223
  ]

  # erf(x) / x in powers of x^2, from the highest: 2 / sqrt(pi) (-1)^k / (k! (2k + 1)). Below one half
  # the next term adds less than 1.0e-9.
  @series [
    1.2055332981789664e-4,
    -8.548327023450852e-4,
    5.2239776254421878e-3,
    -2.6866170645131252e-2,
    0.11283791670955126,
    -0.37612638903183754,
    1.1283791670955126
  ]

  defp erfc(x, dtype) do
    one = scalar(1, dtype)

    horner = fn [first | rest], x ->
      Enum.reduce(rest, scalar(first, dtype), fn factor, sum ->
        {:add, scalar(factor, dtype), {:multiply, x, sum}}
      end)
    end

    share({:abs, x}, fn size ->
      share({:square, x}, fn square ->
        inverse = {:divide, one, {:add, one, {:multiply, size, scalar(0.5, dtype)}}}

        tail =
          share(inverse, fn t ->
            {:multiply, t, {:exp, {:subtract, horner.(@tail, t), square}}}
          end)

        # 2 - tail below zero: MLX chooses slowly where it cannot foresee the choice.
        both =
          share({:sign, x}, fn sign ->
            {:add, {:subtract, one, sign}, {:multiply, sign, tail}}
          end)

        is_small = {:less, size, scalar(0.5, dtype)}
        {:where, is_small, {:subtract, one, {:multiply, x, horner.(@series, square)}}, both}
      end)
    end)
  end
end
