defmodule Emily.Lower.FFT do
  @moduledoc false
  # Fourier transforms.

  import Emily.Lower.Types

  def names, do: [:fft, :ifft, :fft2, :ifft2, :rfft, :irfft]

  # MLX pads or cuts the axis to the length.
  def lower(name, out, [tensor, opts]) when name in [:fft, :ifft] do
    transform(name, complex(out, tensor), opts[:length], opts[:axis], opts[:eps])
  end

  def lower(name, out, [tensor, opts]) when name in [:fft2, :ifft2] do
    op = if name == :fft2, do: :fft, else: :ifft
    [axis1, axis2] = opts[:axes]
    [length1, length2] = opts[:lengths]

    complex(out, tensor)
    |> then(&transform(op, &1, length2, axis2, opts[:eps]))
    |> then(&transform(op, &1, length1, axis1, opts[:eps]))
  end

  def lower(:rfft, out, [tensor, opts]) do
    _ = dtype(out.type)
    transform(:rfft, cast(tensor, {:f, 32}), opts[:length], opts[:axis], opts[:eps])
  end

  def lower(:irfft, out, [tensor, opts]) do
    transform(:irfft, cast(tensor, {:c, 64}), opts[:length], opts[:axis], opts[:eps])
    |> convert({:f, 32}, out.type)
  end

  # As in Nx, a part that is no larger than `eps` is zero.
  defp transform(op, x, length, axis, eps), do: {:chop, {op, x, length, axis}, eps}

  defp complex(%{type: type}, tensor) do
    _ = dtype(type)
    cast(tensor, type)
  end
end
