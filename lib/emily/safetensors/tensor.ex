defmodule Emily.Safetensors.Tensor do
  @moduledoc """
  A tensor that is still in its safetensors file: an `Nx.LazyContainer`, which `Nx.to_tensor/1` reads
  onto `Emily.Backend`.

    * `:name`, `:type`, `:shape` - as in the file; a boolean is u8
    * `:path`, `:offset`, `:length` - the file, the first of the tensor's bytes in it and their number
    * `:device` - where it is read to
  """

  @enforce_keys [:name, :path, :type, :shape, :offset, :length, :device]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          name: String.t(),
          path: Path.t(),
          type: Nx.Type.t(),
          shape: tuple(),
          offset: non_neg_integer(),
          length: pos_integer(),
          device: :cpu | :gpu
        }

  defimpl Nx.LazyContainer do
    def traverse(%{shape: shape, type: type} = tensor, acc, fun) do
      template = Nx.template(shape, type)
      fun.(template, fn -> load(tensor, template) end, acc)
    end

    defp load(
           %{path: path, offset: offset, device: device},
           %{shape: shape, type: type} = template
         ) do
      dtype = Emily.Lower.dtype(type)
      ref = Emily.Native.from_file(path, offset, shape, dtype, device)
      %{template | data: %Emily.Backend{ref: ref, device: device}}
    end
  end
end
