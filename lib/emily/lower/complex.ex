defmodule Emily.Lower.Complex do
  @moduledoc false
  # Complex matrices as real ones. The number a + ib is the matrix [[a, -b], [b, a]], and a matrix of
  # such blocks multiplies as the complex matrix does. Row and column 2i and 2i + 1 belong to i, so
  # that a triangle stays one.

  import Emily.Expr, only: [share: 2, scalar: 2]

  @doc "The real matrix of a complex one, whose axes have the sizes `dims`."
  def real_matrix(x, dims) do
    {batch, [rows, columns]} = Enum.split(dims, -2)

    share({:conjugate, x}, fn x ->
      # i times the conjugate of a + ib is b + ia.
      turned = {:multiply, x, scalar(Complex.new(0.0, 1.0), :c64)}
      both = {:stack, [{:view, x, :f32}, {:view, turned, :f32}], -2}
      {:reshape, both, batch ++ [2 * rows, 2 * columns]}
    end)
  end

  @doc "The first column of each block: real and imaginary parts below each other."
  def to_rows(x, dims) do
    {batch, [rows, columns]} = Enum.split(dims, -2)

    share(x, fn x ->
      {:reshape, {:stack, [{:real, x}, {:imag, x}], -2}, batch ++ [2 * rows, columns]}
    end)
  end

  @doc "What `to_rows/2` took apart."
  def from_rows(x, dims) do
    {batch, [rows, columns]} = Enum.split(dims, -2)
    rank = length(batch)
    order = Enum.to_list(0..(rank - 1)//1) ++ [rank, rank + 2, rank + 1]
    split = {:reshape, x, batch ++ [rows, 2, columns]}
    {:reshape, {:view, {:contiguous, {:transpose, split, order}}, :c64}, dims}
  end
end
