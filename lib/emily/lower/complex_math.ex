defmodule Emily.Lower.ComplexMath do
  @moduledoc false
  # Complex functions whose meaning at infinities is not MLX's. As in Nx.BinaryBackend a power, an arc sine,
  # an arc cosine and an area tangent of what is not finite are NaN; others have their limits (C99,
  # Annex G).

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]

  @type_c64 {:c, 64}

  @inverses [acos: :arccos, asin: :arcsin]

  def lower(name, %{type: {:c, 64}}, [tensor]) when name in [:acos, :asin] do
    share(cast(tensor, @type_c64), fn x -> where_finite([x], {@inverses[name], x}) end)
  end

  # MLX (0.32.4) has neither for a GPU: each is the arc sine or cosine of a plane that is turned, with C99's limits.
  def lower(:asinh, %{type: {:c, 64}}, [tensor]) do
    share(cast(tensor, @type_c64), fn z ->
      share({:arcsin, complex({:negative, {:imag, z}}, {:real, z})}, fn turned ->
        complex({:imag, turned}, {:negative, {:real, turned}})
      end)
    end)
  end

  # The angle has the sign of the imaginary part, of a zero too.
  def lower(:acosh, %{type: {:c, 64}}, [tensor]) do
    share(cast(tensor, @type_c64), fn z ->
      share({:arccos, z}, fn turned ->
        share({:real, turned}, fn angle ->
          share({:imag, z}, fn y ->
            below = &{:less, &1, scalar(0, :f32)}
            is_below = {:logical_or, below.(y), below.({:divide, scalar(1, :f32), y})}
            angle = {:where, is_below, {:negative, angle}, angle}
            complex({:abs, {:imag, turned}}, angle)
          end)
        end)
      end)
    end)
  end

  # Half the logarithm of (1 + z) / (1 - z), by its parts: MLX (0.32.4) has none for a GPU. The size of the real part has no
  # cancellation, and its sign is that of z.
  def lower(:atanh, %{type: {:c, 64}}, [tensor]) do
    share(cast(tensor, @type_c64), fn z ->
      share({:real, z}, fn x ->
        share({:imag, z}, fn y ->
          share({:abs, x}, fn size ->
            share({:square, y}, fn square ->
              rest = {:subtract, scalar(1, :f32), size}
              far = {:add, {:square, rest}, square}
              ratio = {:divide, {:multiply, scalar(4, :f32), size}, far}
              real = {:multiply, {:multiply, {:sign, x}, scalar(0.25, :f32)}, {:log1p, ratio}}
              near = {:multiply, rest, {:add, scalar(1, :f32), size}}
              angle = {:arctan2, {:add, y, y}, {:subtract, near, square}}
              where_finite([z], complex(real, {:multiply, scalar(0.5, :f32), angle}))
            end)
          end)
        end)
      end)
    end)
  end

  # A third of the angle. What is built of its parts needs no product with i, which would be NaN where the
  # other part is infinite.
  def lower(:cbrt, %{type: {:c, 64}}, [tensor]) do
    share(cast(tensor, @type_c64), fn x ->
      angle = {:multiply, {:arctan2, {:imag, x}, {:real, x}}, scalar(1 / 3, :f32)}

      share(share({:abs, x}, &root/1), fn size ->
        share(angle, fn angle ->
          complex(scaled(size, {:cos, angle}), scaled(size, {:sin, angle}))
        end)
      end)
    end)
  end

  def lower(:pow, %{type: {:c, 64}}, [base, exponent]) do
    share(cast(base, @type_c64), fn base ->
      share(cast(exponent, @type_c64), fn exponent ->
        is_zero = {:equal, exponent, scalar(0, :c64)}
        power = {:where, is_zero, scalar(1, :c64), {:power, base, exponent}}
        vanishes = {:logical_and, zero?(base), {:equal, exponent, scalar(:infinity, :c64)}}
        {:where, vanishes, scalar(0, :c64), where_finite([base, exponent], power)}
      end)
    end)
  end

  defp complex(real, imaginary),
    do: {:squeeze, {:view, {:stack, [real, imaginary], -1}, :c64}, [-1]}

  defp zero?(x), do: {:equal, x, scalar(0, :c64)}

  # A power, then one step of Newton's method, which is NaN at zero and infinity.
  defp root(size) do
    share({:power, size, scalar(1 / 3, :f32)}, fn root ->
      excess = {:subtract, root, {:divide, size, {:square, root}}}

      share({:subtract, root, {:multiply, excess, scalar(1 / 3, :f32)}}, fn refined ->
        {:where, {:equal, refined, refined}, refined, root}
      end)
    end)
  end

  # Zero times infinity is zero here: an angle of zero stays one.
  defp scaled(size, part) do
    share(part, fn part ->
      {:where, {:equal, part, scalar(0, :f32)}, part, {:multiply, size, part}}
    end)
  end

  defp where_finite(numbers, result) do
    finite =
      for x <- numbers, part <- [:real, :imag], do: {:isfinite, {part, x}}

    nan = scalar(Complex.new(:nan, :nan), :c64)
    {:where, Enum.reduce(finite, &{:logical_and, &2, &1}), result, nan}
  end
end
