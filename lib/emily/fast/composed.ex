defmodule Emily.Fast.Composed do
  @moduledoc false
  # What the composed forms of the kernels share. They compute in f32 (f64 for f64) and round to
  # the type of the first tensor once, at the end.

  @doc "The type in which a kernel over `type` computes."
  def compute_type({:f, 64}), do: {:f, 64}
  def compute_type({:c, bits}), do: {:c, bits}
  def compute_type(_type), do: {:f, 32}

  @doc """
  The tensor in the computing type of `type`, rounded to `type` first: a kernel takes all its
  float tensors in the type of the first one.
  """
  def up(tensor, type), do: tensor |> Nx.as_type(type) |> Nx.as_type(compute_type(type))
end
