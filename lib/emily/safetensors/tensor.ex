defmodule Emily.Safetensors.Tensor do
  @moduledoc """
  A tensor that is still in its safetensors file.

  It is an `Nx.LazyContainer`, which `Nx.to_tensor/1` reads onto `Emily.Backend`.

    * `:name`, `:type`, `:shape` - as in the file; a boolean is u8, and a type that Nx has not `nil`
    * `:path`, `:offset`, `:length` - the file, the first of the tensor's bytes in it and their number
    * `:device` - where it is read to
    * `:problem` - why it cannot be read, which reading it raises; `nil` where it can
  """

  @enforce_keys [:name, :path, :type, :shape, :offset, :length, :device, :problem]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          name: String.t(),
          path: Path.t(),
          type: Nx.Type.t() | nil,
          shape: tuple(),
          offset: non_neg_integer(),
          length: non_neg_integer(),
          device: Emily.Native.device_name(),
          problem: String.t() | nil
        }

  defimpl Nx.LazyContainer do
    alias Emily.{Lower, Native}

    def traverse(%{problem: nil} = tensor, acc, fun) do
      template = Nx.template(tensor.shape, tensor.type)
      fun.(template, fn -> load(tensor, template) end, acc)
    end

    def traverse(%{path: path, name: name, problem: problem}, _acc, _fun) do
      raise ArgumentError, "Emily.Safetensors: #{path}: the tensor #{inspect(name)} #{problem}"
    end

    defp load(%{type: type, device: device} = tensor, template) do
      read = &Native.from_file(tensor.path, tensor.offset, tensor.shape, &1, device)

      if Lower.type?(type) do
        Emily.Backend.tensor(template, read.(Lower.dtype(type)), device)
      else
        # Of these types an element is one byte.
        Emily.Backend.from_binary(template, Native.to_binary(read.(:u8)), device: device)
      end
    end
  end
end
