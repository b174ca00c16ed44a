defmodule Emily.Lower.Elementwise do
  @moduledoc false
  # One number in, one number out: arithmetic, comparison, logic, bits, rounding.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]

  @arithmetic [
    add: :add,
    subtract: :subtract,
    multiply: :multiply,
    divide: :divide,
    atan2: :arctan2,
    min: :minimum,
    max: :maximum,
    quotient: :floor_divide,
    bitwise_and: :bitwise_and,
    bitwise_or: :bitwise_or,
    bitwise_xor: :bitwise_xor
  ]

  @comparison [
    equal: :equal,
    not_equal: :not_equal,
    greater: :greater,
    less: :less,
    greater_equal: :greater_equal,
    less_equal: :less_equal
  ]

  @unary [abs: :abs, negate: :negative, bitwise_not: :bitwise_invert, ceil: :ceil, floor: :floor]

  @others [:pow, :remainder, :left_shift, :right_shift, :logical_and, :logical_or, :logical_xor] ++
            [:logical_not, :sign, :round, :is_nan, :is_infinity, :conjugate, :real, :imag, :phase] ++
            [:count_leading_zeros, :population_count, :as_type, :bitcast, :select, :clip]

  def names do
    Keyword.keys(@arithmetic) ++ Keyword.keys(@comparison) ++ Keyword.keys(@unary) ++ @others
  end

  # The angle of what is not real is not defined.
  def lower(:atan2, %{type: {:c, 64} = type}, [left, right]) do
    share(cast(left, type), fn y ->
      share(cast(right, type), fn x ->
        zero = scalar(0, :f32)
        real? = {:logical_and, {:equal, {:imag, y}, zero}, {:equal, {:imag, x}, zero}}
        angle = {:arctan2, {:real, y}, {:real, x}}
        {:astype, {:where, real?, angle, scalar(:nan, :f32)}, :c64}
      end)
    end)
  end

  # No type holds both operands: the magnitudes are divided, and the sign comes last.
  def lower(:quotient, %{type: {:s, 64}}, [left, right])
      when left.type == {:u, 64} or right.type == {:u, 64} do
    by_magnitude(:floor_divide, left, right, fn left_sign, right_sign ->
      {:multiply, left_sign, right_sign}
    end)
  end

  # No type holds both operands: the greater is found by value, and its bits are kept.
  for {name, op} <- [min: :less, max: :greater] do
    def lower(unquote(name), %{type: {:s, 64} = type}, [left, right])
        when left.type == {:u, 64} or right.type == {:u, 64} do
      {:where, compare(unquote(op), left, right), cast(left, type), cast(right, type)}
    end
  end

  for {name, op} <- @arithmetic do
    def lower(unquote(name), out, args), do: binary(unquote(op), out, args)
  end

  for {name, op} <- @comparison do
    def lower(unquote(name), out, [left, right]) do
      from_bool(compare(unquote(op), left, right), out)
    end
  end

  def lower(:abs, _out, [%{type: {:c, _}} = tensor]), do: {:abs, value(tensor)}

  for {name, op} <- @unary do
    def lower(unquote(name), %{type: type}, [tensor]), do: {unquote(op), cast(tensor, type)}
  end

  # Of a negative exponent MLX gives 0, where 1 and -1 have powers of their own.
  def lower(:pow, %{type: {:s, _} = type}, [base, %{type: {:s, _}} = exponent]) do
    op = if known(exponent) in 0..0x7FFFFFFF, do: :power, else: :integer_power
    {op, cast(base, type), cast(exponent, type)}
  end

  def lower(:pow, %{type: {:c, _}} = out, args),
    do: Emily.Lower.ComplexMath.lower(:pow, out, args)

  # A square, as a variance has it, is a product, whether its exponent is known or not. The kernel of f32 has it so; MLX's power
  # of f64 is not always the nearest number.
  def lower(:pow, %{type: {:f, bits} = type} = out, [base, exponent]) when bits in [32, 64] do
    cond do
      known(exponent) == 2 ->
        {:square, cast(base, type)}

      known(exponent) || bits == 32 ->
        binary(:power, out, [base, exponent])

      true ->
        share(cast(base, type), fn x ->
          share(cast(exponent, type), fn y ->
            {:where, {:equal, y, scalar(2, :f64)}, {:square, x}, {:power, x, y}}
          end)
        end)
    end
  end

  def lower(:pow, out, args), do: binary(:power, out, args)

  # Nx's remainder has the sign of the dividend, MLX's that of the divisor.
  def lower(:remainder, %{type: {:s, 64}}, [left, right])
      when left.type == {:u, 64} or right.type == {:u, 64} do
    by_magnitude(:remainder, left, right, fn left_sign, _right_sign -> left_sign end)
  end

  def lower(:remainder, out, args), do: binary(:fmod, out, args)

  # The processor takes a shift modulo the width; in Nx all bits are shifted out. A negative count is
  # a large one without its sign.
  def lower(:left_shift, %{type: {_, bits} = type}, [left, right]) do
    op = if within?(right, bits), do: :left_shift, else: :wide_left_shift
    {op, cast(left, type), cast(right, type)}
  end

  # The sign of a u64 is no sign.
  def lower(:right_shift, %{type: {:s, _} = type}, [%{type: {:u, 64}} = left, right]) do
    convert({:wide_right_shift, value(left), cast(right, {:u, 64})}, {:u, 64}, type)
  end

  def lower(:right_shift, %{type: {_, bits} = type}, [left, right]) do
    op = if within?(right, bits), do: :right_shift, else: :wide_right_shift
    {op, cast(left, type), cast(right, type)}
  end

  def lower(:logical_and, out, [left, right]) do
    from_bool({:logical_and, condition(left), condition(right)}, out)
  end

  def lower(:logical_or, out, [left, right]) do
    from_bool({:logical_or, condition(left), condition(right)}, out)
  end

  def lower(:logical_xor, out, [left, right]) do
    from_bool({:not_equal, condition(left), condition(right)}, out)
  end

  # What is zero, which takes one pass where a condition and its opposite take two.
  def lower(:logical_not, out, [%{type: type} = tensor]) do
    from_bool({:equal, value(tensor), scalar(0, dtype(type))}, out)
  end

  def lower(:sign, _out, [tensor]), do: {:sign, value(tensor)}

  # MLX rounds halves to even, Nx away from zero.
  def lower(:round, _out, [tensor]), do: {:round_away, value(tensor)}

  def lower(:is_nan, out, [%{type: type}]) when is_integer_type(type), do: zeros(out)
  def lower(:is_nan, out, [tensor]), do: from_bool({:isnan, value(tensor)}, out)

  def lower(:is_infinity, out, [%{type: type}]) when is_integer_type(type), do: zeros(out)
  def lower(:is_infinity, out, [tensor]), do: from_bool({:isinf, value(tensor)}, out)

  def lower(:conjugate, %{type: type}, [tensor]), do: {:conjugate, cast(tensor, type)}
  def lower(:real, %{type: type}, [tensor]), do: convert({:real, value(tensor)}, {:f, 32}, type)
  def lower(:imag, %{type: type}, [tensor]), do: convert({:imag, value(tensor)}, {:f, 32}, type)

  def lower(:phase, %{type: type}, [%{type: {:c, 64}} = tensor]) do
    share(value(tensor), fn x -> convert({:arctan2, {:imag, x}, {:real, x}}, {:f, 32}, type) end)
  end

  def lower(:phase, _out, _args), do: :default

  def lower(:population_count, %{type: {_, bits} = type}, [tensor]) do
    popcount({:view, value(tensor), dtype({:u, bits})}, bits, type)
  end

  # Every bit below the highest is set; the bits that stay zero are the leading ones.
  def lower(:count_leading_zeros, %{type: type}, [%{type: {_, bits}} = tensor]) do
    unsigned = {:view, value(tensor), dtype({:u, bits})}
    popcount({:bitwise_invert, smear(unsigned, 1, bits)}, bits, type)
  end

  def lower(:as_type, %{type: type}, [tensor]), do: cast(tensor, type)
  def lower(:bitcast, %{type: type}, [tensor]), do: {:view, value(tensor), dtype(type)}

  def lower(:select, %{type: type}, [predicate, on_true, on_false]) do
    {:where, condition(predicate), cast(on_true, type), cast(on_false, type)}
  end

  def lower(:clip, %{type: {:s, 64}}, [tensor, low, high])
      when {:u, 64} == tensor.type or {:u, 64} == low.type or {:u, 64} == high.type do
    ordered(tensor, fn x ->
      ordered(low, fn low ->
        ordered(high, fn high ->
          {bits, big} = choose(greater(x, low), x, low)

          share(bits, fn bits ->
            share(big, fn big ->
              {clipped, _} = choose(greater(high, {bits, big}), {bits, big}, high)
              clipped
            end)
          end)
        end)
      end)
    end)
  end

  # NaN passes through, as it does in XLA.
  def lower(:clip, %{type: type}, [tensor, low, high]) do
    {:clip, cast(tensor, type), cast(low, type), cast(high, type)}
  end

  defp binary(op, %{type: type}, [left, right] = args) do
    wide = operands(type, args)
    convert({op, cast(left, wide), cast(right, wide)}, wide, type)
  end

  defp by_magnitude(op, left, right, sign) do
    magnitude(left, fn x, left_sign ->
      magnitude(right, fn y, right_sign ->
        {:multiply, {:view, {op, x, y}, :s64}, sign.(left_sign, right_sign)}
      end)
    end)
  end

  defp magnitude(%{type: {:u, _}} = tensor, fun) do
    fun.(cast(tensor, {:u, 64}), scalar(1, :s64))
  end

  defp magnitude(tensor, fun) do
    share(cast(tensor, {:s, 64}), fn x ->
      sign = {:where, {:less, x, scalar(0, :s64)}, scalar(-1, :s64), scalar(1, :s64)}
      fun.({:view, {:abs, x}, :u64}, sign)
    end)
  end

  # An integer as the bits of an s64, and whether it is greater than any s64.
  defp ordered(%{type: type} = tensor, fun) do
    share(cast(tensor, {:s, 64}), fn bits ->
      big = if type == {:u, 64}, do: {:less, bits, scalar(0, :s64)}, else: flag(false)
      share(big, fn big -> fun.({bits, big}) end)
    end)
  end

  defp greater({x, x_big}, {y, y_big}) do
    same = {:logical_and, {:equal, x_big, y_big}, {:greater, x, y}}
    {:logical_or, {:greater, x_big, y_big}, same}
  end

  defp choose(condition, {x, x_big}, {y, y_big}) do
    {{:where, condition, x, y}, {:where, condition, x_big, y_big}}
  end

  defp condition(%{type: type} = tensor), do: truthy(value(tensor), type)

  defp zeros(%{shape: shape, type: type}) do
    Emily.Expr.full(Tuple.to_list(shape), 0, dtype(type))
  end

  defp compare(op, %{type: type} = left, %{type: type} = right) do
    {op, value(left), value(right)}
  end

  # No integer type holds both; below zero the answer does not depend on the unsigned number.
  defp compare(op, %{type: {:u, 64}} = left, %{type: {:s, _} = type} = right) do
    share(value(right), fn signed ->
      both = {op, value(left), {:astype, signed, :u64}}
      known = flag(op in [:not_equal, :greater, :greater_equal])
      {:where, {:less, signed, scalar(0, dtype(type))}, known, both}
    end)
  end

  defp compare(op, %{type: {:s, _} = type} = left, %{type: {:u, 64}} = right) do
    share(value(left), fn signed ->
      both = {op, {:astype, signed, :u64}, value(right)}
      known = flag(op in [:not_equal, :less, :less_equal])
      {:where, {:less, signed, scalar(0, dtype(type))}, known, both}
    end)
  end

  # MLX has no type that holds both; a complex number equals the reals alone that have its real part.
  defp compare(op, %{type: {:c, 64}} = left, %{type: {:f, 64}} = right) do
    share(value(left), fn z ->
      real = {op, convert({:real, z}, {:f, 32}, {:f, 64}), value(right)}
      imaginary = {op, {:imag, z}, scalar(0, :f32)}
      {if(op == :equal, do: :logical_and, else: :logical_or), real, imaginary}
    end)
  end

  defp compare(op, %{type: {:f, 64}} = left, %{type: {:c, 64}} = right),
    do: compare(op, right, left)

  defp compare(op, left, right) do
    type = accumulator(Nx.Type.merge(left.type, right.type))
    {op, cast(left, type), cast(right, type)}
  end

  defp flag(true), do: scalar(1, :bool)
  defp flag(false), do: scalar(0, :bool)

  defp smear(x, distance, bits) when distance >= bits, do: x

  defp smear(x, distance, bits) do
    shifted = fn x -> {:bitwise_or, x, {:right_shift, x, scalar(distance, dtype({:u, bits}))}} end
    share(x, fn x -> smear(shifted.(x), distance * 2, bits) end)
  end

  # Bits are added in pairs, the pairs' sums in fours and these in bytes; a product adds the bytes up
  # in the highest one.
  defp popcount(x, bits, type) do
    dtype = dtype({:u, bits})
    bytes = fn byte -> scalar(div(Bitwise.bsl(1, bits) - 1, 0xFF) * byte, dtype) end
    above = fn x, distance -> {:right_shift, x, scalar(distance, dtype)} end

    pairs = share(x, &{:subtract, &1, {:bitwise_and, above.(&1, 1), bytes.(0x55)}})

    fours =
      share(pairs, fn x ->
        {:add, {:bitwise_and, x, bytes.(0x33)}, {:bitwise_and, above.(x, 2), bytes.(0x33)}}
      end)

    counts = share(fours, &{:bitwise_and, {:add, &1, above.(&1, 4)}, bytes.(0x0F)})
    count = if bits == 8, do: counts, else: above.({:multiply, counts, bytes.(0x01)}, bits - 8)
    convert(count, {:u, bits}, type)
  end

  # Whether a shift's count is a number of the caller's code that leaves bits over.
  defp within?(count, bits), do: known(count) in 0..(bits - 1)

  # A number of the caller's code.
  defp known(%{data: %{ref: {:full, [], number, _}}}), do: number
  defp known(_tensor), do: nil
end
