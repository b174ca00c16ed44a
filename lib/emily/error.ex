defmodule Emily.Error do
  @moduledoc """
  Raised when MLX refuses an operation or fails while it computes one.

  What Emily itself refuses, before MLX is called, is an `ArgumentError`.
  """

  defexception [:message]

  @type t :: %__MODULE__{message: String.t()}
end
