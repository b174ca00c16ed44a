defmodule Emily.GGUF.Tensor do
  @moduledoc """
  Where a tensor lies in a GGUF file, and what it is.

    * `:name` - its name, such as `"blk.0.attn_q.weight"`
    * `:type` - GGML's type in lower case, such as `:f32`, `:bf16`, `:q4_1`
    * `:shape` - its shape as Nx has it; the file has the sizes in reverse
    * `:offset` - the first of its bytes in the file
    * `:length` - the number of its bytes
  """

  @enforce_keys [:name, :type, :shape, :offset, :length]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          name: String.t(),
          type: atom(),
          shape: tuple(),
          offset: non_neg_integer(),
          length: pos_integer()
        }
end
