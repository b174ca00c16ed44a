defmodule Emily.Lower.Erf64 do
  @moduledoc false
  # The error function and its relatives in f64, which MLX computes with f32's precision only.
  #
  # erf and erfc: the rational approximations published with fdlibm (s_erf.c, Sun Microsystems 1993),
  # whose errors stay below an ulp. erf_inv: algorithm AS 241 of M. J. Wichura, Applied Statistics 37
  # (1988), for the normal quantile z(p): erf_inv(x) = z((1 + x) / 2) / sqrt(2).

  import Emily.Expr, only: [share: 2, scalar: 2]

  # Coefficients from the constant on. Below 0.84375: erf(x) = x + x P(x^2) / Q(x^2).
  @near {[
           1.28379167095512558561e-01,
           -3.25042107247001499370e-01,
           -2.84817495755985104766e-02,
           -5.77027029648944159157e-03,
           -2.37630166566501626084e-05
         ],
         [
           1.0,
           3.97917223959155352819e-01,
           6.50222499887672944485e-02,
           5.08130628187576562776e-03,
           1.32494738004321644526e-04,
           -3.96022827877536812320e-06
         ]}

  # Below 1.25: erf(x) = c + P(x - 1) / Q(x - 1).
  @at_one 8.45062911510467529297e-01
  @middle {[
             -2.36211856075265944077e-03,
             4.14856118683748331666e-01,
             -3.72207876035701323847e-01,
             3.18346619901161753674e-01,
             -1.10894694282396677476e-01,
             3.54783043256182359371e-02,
             -2.16637559486879084300e-03
           ],
           [
             1.0,
             1.06420880400844228286e-01,
             5.40397917702171048937e-01,
             7.18286544141962662868e-02,
             1.26171219808761642112e-01,
             1.36370839120290507362e-02,
             1.19844998467991074170e-02
           ]}

  # Below 1 / 0.35, and above: erfc(x) = exp(-x^2 - 0.5625 + P(1 / x^2) / Q(1 / x^2)) / x.
  @far {[
          -9.86494403484714822705e-03,
          -6.93858572707181764372e-01,
          -1.05586262253232909814e+01,
          -6.23753324503260060396e+01,
          -1.62396669462573470355e+02,
          -1.84605092906711035994e+02,
          -8.12874355063065934246e+01,
          -9.81432934416914548592e+00
        ],
        [
          1.0,
          1.96512716674392571292e+01,
          1.37657754143519042600e+02,
          4.34565877475229228821e+02,
          6.45387271733267880336e+02,
          4.29008140027567833386e+02,
          1.08635005541779435134e+02,
          6.57024977031928170135e+00,
          -6.04244152148580987438e-02
        ]}
  @farthest {[
               -9.86494292470009928597e-03,
               -7.99283237680523006574e-01,
               -1.77579549177547519889e+01,
               -1.60636384855821916062e+02,
               -6.37566443368389627722e+02,
               -1.02509513161107724954e+03,
               -4.83519191608651397019e+02
             ],
             [
               1.0,
               3.03380607434824582924e+01,
               3.25792512996573918826e+02,
               1.53672958608443695994e+03,
               3.19985821950859553908e+03,
               2.55305040643316442583e+03,
               4.74528541206955367215e+02,
               -2.24409524465858183362e+01
             ]}

  # z(1/2 + q) = q P(0.425^2 - q^2) / Q(0.425^2 - q^2) where |q| <= 0.425.
  @quantile_near {[
                    3.3871328727963666080e0,
                    1.3314166789178437745e+2,
                    1.9715909503065514427e+3,
                    1.3731693765509461125e+4,
                    4.5921953931549871457e+4,
                    6.7265770927008700853e+4,
                    3.3430575583588128105e+4,
                    2.5090809287301226727e+3
                  ],
                  [
                    1.0,
                    4.2313330701600911252e+1,
                    6.8718700749205790830e+2,
                    5.3941960214247511077e+3,
                    2.1213794301586595867e+4,
                    3.9307895800092710610e+4,
                    2.8729085735721942674e+4,
                    5.2264952788528545610e+3
                  ]}

  # With r = sqrt(-log(1/2 - |q|)): in r - 1.6 where r <= 5, in r - 5 beyond.
  @quantile_far {[
                   1.42343711074968357734e0,
                   4.63033784615654529590e0,
                   5.76949722146069140550e0,
                   3.64784832476320460504e0,
                   1.27045825245236838258e0,
                   2.41780725177450611770e-1,
                   2.27238449892691845833e-2,
                   7.74545014278341407640e-4
                 ],
                 [
                   1.0,
                   2.05319162663775882187e0,
                   1.67638483018380384940e0,
                   6.89767334985100004550e-1,
                   1.48103976427480074590e-1,
                   1.51986665636164571966e-2,
                   5.47593808499534494600e-4,
                   1.05075007164441684324e-9
                 ]}
  @quantile_farthest {[
                        6.65790464350110377720e0,
                        5.46378491116411436990e0,
                        1.78482653991729133580e0,
                        2.96560571828504891230e-1,
                        2.65321895265761230930e-2,
                        1.24266094738807843860e-3,
                        2.71155556874348757815e-5,
                        2.01033439929228813265e-7
                      ],
                      [
                        1.0,
                        5.99832206555887937690e-1,
                        1.36929880922735805310e-1,
                        1.48753612908506148525e-2,
                        7.86869131145613259100e-4,
                        1.84631831751005468180e-5,
                        1.42151175831644588870e-7,
                        2.04426310338993978564e-15
                      ]}

  def erf(x, exp) do
    share(x, fn x ->
      size = {:abs, x}

      share(size, fn size ->
        near = {:add, x, {:multiply, x, ratio(@near, {:square, x})}}
        middle = {:add, number(@at_one), middle(size)}
        beyond = {:subtract, number(1), tail(size, exp)}
        far = {:multiply, {:sign, x}, where(size, 1.25, middle, beyond)}
        where(size, 0.84375, near, {:where, {:isnan, x}, x, far})
      end)
    end)
  end

  def erfc(x, exp) do
    share(x, fn x ->
      share({:abs, x}, fn size ->
        positive = {:greater, x, number(0)}
        excess = {:multiply, x, ratio(@near, {:square, x})}

        near =
          share(excess, fn excess ->
            # Above a quarter the digits of 1 - x would be lost before the rest is taken off.
            upper = {:subtract, number(0.5), {:add, excess, {:subtract, x, number(0.5)}}}
            where(x, 0.25, {:subtract, number(1), {:add, x, excess}}, upper)
          end)

        middle =
          share(middle(size), fn middle ->
            above = {:subtract, number(1 - @at_one), middle}
            below = {:add, number(1), {:add, number(@at_one), middle}}
            {:where, positive, above, below}
          end)

        far =
          share(tail(size, exp), fn tail ->
            {:where, positive, tail, {:subtract, number(2), tail}}
          end)

        where(size, 0.84375, near, where(size, 1.25, middle, far))
      end)
    end)
  end

  def erf_inv(x) do
    share(x, fn x ->
      half = {:multiply, x, number(0.5)}

      central =
        {:multiply, half, ratio(@quantile_near, {:subtract, number(0.180625), square(half)})}

      rest = {:multiply, {:subtract, number(1), {:abs, x}}, number(0.5)}

      share({:sqrt, {:negative, {:log, rest}}}, fn r ->
        far = ratio(@quantile_far, {:subtract, r, number(1.6)})
        farthest = ratio(@quantile_farthest, {:subtract, r, number(5.0)})
        tail = {:where, {:isinf, r}, r, where(r, 5.0, far, farthest)}
        tail = {:multiply, {:sign, x}, tail}
        {:multiply, where({:abs, x}, 0.85, central, tail), number(0.7071067811865476)}
      end)
    end)
  end

  defp middle(size), do: ratio(@middle, {:subtract, size, number(1)})

  # erfc of what is at least 1.25. Beyond 28 it is zero. The square of x with its lower half cut off
  # is exact, and the rest of the square goes with the small terms.
  defp tail(size, exp) do
    share({:minimum, size, number(28)}, fn x ->
      inverse = {:divide, number(1), {:square, x}}
      mask = scalar(0xFFFFFFFF00000000, :u64)
      cut = {:view, {:bitwise_and, {:view, x, :u64}, mask}, :f64}

      share(cut, fn cut ->
        series =
          share(inverse, fn inverse ->
            where(x, 1 / 0.35, ratio(@far, inverse), ratio(@farthest, inverse))
          end)

        rest = {:multiply, {:subtract, cut, x}, {:add, cut, x}}
        main = exp.({:subtract, number(-0.5625), {:square, cut}})
        {:divide, {:multiply, main, exp.({:add, rest, series})}, x}
      end)
    end)
  end

  defp ratio({above, below}, x) do
    share(x, fn x -> {:divide, polynomial(above, x), polynomial(below, x)} end)
  end

  defp polynomial(coefficients, x) do
    [highest | rest] = Enum.reverse(coefficients)
    Enum.reduce(rest, number(highest), &{:add, number(&1), {:multiply, x, &2}})
  end

  defp where(x, limit, below, otherwise) do
    {:where, {:less, x, number(limit)}, below, otherwise}
  end

  defp square(x), do: {:square, x}
  defp number(number), do: scalar(number, :f64)
end
