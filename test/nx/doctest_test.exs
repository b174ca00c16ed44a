defmodule Emily.NxDoctestTest do
  # Nx's own examples, with Emily.Backend as the default backend. What they print is compared as
  # text, so each function left out is named with the reason.
  use ExUnit.Case, async: false

  setup do
    shown = Application.get_env(:emily, :add_backend_on_inspect, true)
    Application.put_env(:emily, :add_backend_on_inspect, false)
    on_exit(fn -> Application.put_env(:emily, :add_backend_on_inspect, shown) end)
    Nx.default_backend(Emily.Backend)
    :ok
  end

  # They show types that MLX lacks: f8, c128, and integers of less than 8 bits.
  @types [tensor: 2, bit_size: 1]

  # The last digit of a function computed in f64.
  @digits [sin: 1, log1p: 1]

  doctest Nx, except: [:moduledoc] ++ @types ++ @digits

  # The last digits of a factorisation or of what is solved with one.
  @digits [cholesky: 1, determinant: 1, least_squares: 3, lu: 1, lu: 2, matrix_power: 2, pinv: 2] ++
            [solve: 2, triangular_solve: 3, qr: 2]

  # The free signs of vectors.
  @signs [eigh: 2, svd: 2]

  doctest Nx.LinAlg, except: @digits ++ @signs

  # The last digit of the inverse error function.
  doctest Nx.Random, except: [normal: 4, multivariate_normal: 4]

  # They show f8.
  @types [e: 2, epsilon: 2, euler_gamma: 2, i: 2, infinity: 2, nan: 2, neg_infinity: 2, pi: 2] ++
           [smallest_positive_normal: 2]

  doctest Nx.Constants, except: @types
end
