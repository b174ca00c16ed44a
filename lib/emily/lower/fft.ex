defmodule Emily.Lower.FFT do
  @moduledoc false
  # Fourier transforms. Nx's `:eps` only cleans up what rounding leaves, and is not needed.

  import Emily.Lower.Types

  def names, do: [:fft, :ifft, :fft2, :ifft2, :rfft, :irfft]

  # MLX pads or cuts the axis to the length.
  def lower(name, out, [tensor, opts]) when name in [:fft, :ifft] do
    {name, complex(out, tensor), opts[:length], opts[:axis]}
  end

  def lower(name, out, [tensor, opts]) when name in [:fft2, :ifft2] do
    op = if name == :fft2, do: :fft, else: :ifft
    [axis1, axis2] = opts[:axes]
    [length1, length2] = opts[:lengths]
    {op, {op, complex(out, tensor), length2, axis2}, length1, axis1}
  end

  def lower(:rfft, out, [tensor, opts]) do
    _ = dtype(out.type)
    {:rfft, cast(tensor, {:f, 32}), opts[:length], opts[:axis]}
  end

  def lower(:irfft, out, [tensor, opts]) do
    convert({:irfft, cast(tensor, {:c, 64}), opts[:length], opts[:axis]}, {:f, 32}, out.type)
  end

  defp complex(%{type: type}, tensor) do
    _ = dtype(type)
    cast(tensor, type)
  end
end
