defmodule Emily.Backend.Pointer do
  @moduledoc false
  # `Nx.to_pointer/2` and `Nx.from_pointer/5`: addresses of arrays within this process.

  alias Emily.{Backend, Lower, Native}
  alias Nx.Tensor, as: T

  @doc "The address of a tensor's bytes, computed where they are not yet."
  def address(%T{type: type, data: %Backend{device: :host}}, _opts) do
    raise ArgumentError,
          "Nx.to_pointer: no array of MLX's holds a tensor of type #{Nx.Type.to_string(type)}"
  end

  def address(tensor, opts) do
    opts = Native.Options.validate!(opts, [mode: :local], "Nx.to_pointer/2")
    check_kind(:to_pointer, opts[:mode])
    %T{data: %Backend{ref: ref}} = Backend.settled(tensor)
    %Nx.Pointer{kind: :local, address: Native.address(ref), data_size: Native.nbytes(ref)}
  end

  @doc "A tensor of the bytes at an address, which are copied."
  def tensor(%Nx.Pointer{} = pointer, type, shape, device, opts) do
    opts = Native.Options.validate!(opts, [:names], "Nx.from_pointer/5")
    Backend.refuse_f64(type, device)
    check_kind(:from_pointer, pointer.kind)
    dtype = Lower.dtype(type)
    size = Tuple.product(shape) * div(elem(type, 1), 8)

    if pointer.data_size not in [nil, size] do
      raise ArgumentError,
            "Nx.from_pointer: shape #{inspect(shape)} of type #{Nx.Type.to_string(type)} takes " <>
              "#{size} bytes, the pointer's data_size is #{inspect(pointer.data_size)}"
    end

    ref = Native.from_address(pointer.address, shape, dtype, device)
    Backend.tensor(Nx.template(shape, type, names: opts[:names]), ref, device)
  end

  def tensor(other, _type, _shape, _device, _opts) do
    raise ArgumentError, "Nx.from_pointer: expected a %Nx.Pointer{}, got: #{inspect(other)}"
  end

  defp check_kind(_function, :local), do: :ok

  defp check_kind(function, :ipc) do
    raise ArgumentError,
          "Nx.#{function}: Emily.Backend has no :ipc handles, since MLX's memory cannot be shared " <>
            "with another process; use :local, or send Nx.to_binary/1 or Nx.serialize/1"
  end

  defp check_kind(function, other) do
    raise ArgumentError, "Nx.#{function}: expected :local or :ipc, got: #{inspect(other)}"
  end
end
