defmodule Emily.Lower.FFT do
  @moduledoc false
  # Fourier transforms. Nx's `:eps` only cleans up what rounding leaves, and is not needed.

  import Emily.Lower.Types
  import Emily.Expr, only: [scalar: 2]
  alias Emily.Lower.Shape

  def names, do: [:fft, :ifft, :fft2, :ifft2, :rfft, :irfft]

  def lower(name, out, [tensor, opts]) when name in [:fft, :ifft] do
    transform(name, complex(out, tensor), Tuple.to_list(tensor.shape), opts[:length], opts[:axis])
  end

  def lower(name, out, [tensor, opts]) when name in [:fft2, :ifft2] do
    op = if name == :fft2, do: :fft, else: :ifft
    [axis1, axis2] = opts[:axes]
    [length1, length2] = opts[:lengths]
    dims = Tuple.to_list(tensor.shape)
    first = transform(op, complex(out, tensor), dims, length2, axis2)
    transform(op, first, List.replace_at(dims, axis2, length2), length1, axis1)
  end

  def lower(:rfft, out, [tensor, opts]) do
    _ = dtype(out.type)
    {length, axis} = {opts[:length], opts[:axis]}

    {:rfft, fit(cast(tensor, {:f, 32}), Tuple.to_list(tensor.shape), length, axis, :f32), length,
     axis}
  end

  def lower(:irfft, out, [tensor, opts]) do
    {length, axis} = {opts[:length], opts[:axis]}
    dims = Tuple.to_list(tensor.shape)
    x = fit(cast(tensor, {:c, 64}), dims, div(length, 2) + 1, axis, :c64)
    convert({:irfft, x, length, axis}, {:f, 32}, out.type)
  end

  defp transform(op, x, dims, length, axis) do
    {op, fit(x, dims, length, axis, :c64), length, axis}
  end

  # MLX would pad on a stream of its own.
  defp fit(x, dims, length, axis, dtype) do
    config =
      for {dim, at} <- Enum.with_index(dims) do
        {0, if(at == axis, do: length - dim, else: 0), 0}
      end

    Shape.pad(x, dims, config, scalar(0, dtype))
  end

  defp complex(%{type: type}, tensor) do
    _ = dtype(type)
    cast(tensor, type)
  end
end
