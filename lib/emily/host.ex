defmodule Emily.Host do
  @moduledoc false
  # Tensors of the types that MLX lacks. `Nx.BinaryBackend` holds them and computes with them, within
  # tensors of `Emily.Backend` whose device is `:host`, so that every operation on them comes by
  # `Emily.Fallback`. `device` is where results go whose type MLX has.

  import Kernel, except: [apply: 3]

  alias Emily.{Backend, Fallback, Lower, Native}
  alias Nx.BinaryBackend
  alias Nx.Tensor, as: T

  @enforce_keys [:data, :device]
  defstruct [:data, :device]

  @type t :: %__MODULE__{data: struct, device: Emily.Device.t()}

  @linear_algebra [:cholesky, :qr, :svd, :eigh, :lu, :solve, :determinant]

  @doc "A tensor of Emily's with what a tensor of `Nx.BinaryBackend` holds."
  def hold(%T{} = out, %T{data: %BinaryBackend{} = data}, device),
    do: Backend.tensor(out, %__MODULE__{data: data, device: device}, :host)

  @doc "The tensor of `Nx.BinaryBackend`."
  def plain(%T{data: %Backend{ref: %__MODULE__{data: data}}} = tensor), do: %{tensor | data: data}

  @doc "A new tensor, by a callback of `Nx.BinaryBackend`."
  def create(name, out, args, device) do
    fun = fn [] -> hold(out, Kernel.apply(BinaryBackend, name, [out | args] ++ [[]]), device) end
    Fallback.run(name, [], reason([out]), fun, [Nx.to_template(out)])
  end

  @doc "Whether the results of an operation, or one of them, have such a type."
  def held?(%T{type: type}), do: not Lower.type?(type)
  def held?(outs) when is_tuple(outs), do: outs |> Tuple.to_list() |> Enum.any?(&held?/1)

  @doc """
  An operation on such tensors, or with such a result, by `Nx.BinaryBackend`. `fun` gets the arguments
  on that backend.
  """
  def run(name, args, out, fun), do: Fallback.run(name, args, reason([args, out]), fun)

  @doc "What Nx calls by this name, on tensors of `Nx.BinaryBackend`."
  # That one pads with the bytes of a number, whatever the tensor's type.
  def apply(:pad, out, [tensor, value, config]),
    do: BinaryBackend.pad(out, Nx.as_type(tensor, out.type), value, config)

  def apply(name, out, args) do
    Code.ensure_loaded!(BinaryBackend)

    cond do
      function_exported?(BinaryBackend, name, length(args) + 1) ->
        Kernel.apply(BinaryBackend, name, [out | args])

      # What Nx 0.11 asks a backend for by name, and composes where it does not answer.
      name in @linear_algebra ->
        Kernel.apply(Nx.LinAlg, name, args)

      true ->
        Kernel.apply(Nx, name, args)
    end
  end

  @doc "Where the results of an operation go whose type MLX has: as without such tensors."
  def device(args) do
    devices = Enum.flat_map(List.flatten(args), &devices/1)

    if devices == [],
      do: Native.default_device(),
      else: Enum.reduce(devices, &Emily.Device.of_both(&2, &1))
  end

  defp devices(%T{data: %Backend{ref: %__MODULE__{device: device}}}), do: [device]
  defp devices(%T{data: %Backend{device: device}}), do: [device]
  defp devices(_other), do: []

  @doc "Why an operation on, or with a result of, these types leaves MLX."
  def reason(tensors) do
    names = for type <- types(tensors), not Lower.type?(type), uniq: true, do: type_name(type)

    "MLX has no type #{Enum.join(names, ", ")}; cast to a type that it has with Nx.as_type/2"
  end

  defp type_name(type), do: Nx.Type.to_string(type)

  defp types(%T{type: type}), do: [type]
  defp types(list) when is_list(list), do: Enum.flat_map(list, &types/1)
  defp types(outs) when is_tuple(outs), do: outs |> Tuple.to_list() |> types()
  defp types(_other), do: []
end
