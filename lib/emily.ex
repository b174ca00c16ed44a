defmodule Emily do
  @moduledoc """
  MLX's arrays without Nx, and the evaluation of Nx's tensors.

  An array is a reference to an array of MLX's, as in `Emily.Native`, which has its operations. The `ref` of a
  tensor's data is one: `tensor.data.ref`, where the tensor is on `Emily.Backend`.

      iex> array = Emily.from_binary(<<1.0::float-32-native, 2.0::float-32-native>>, [2], {:f, 32})
      iex> {Emily.shape(array), Emily.dtype(array)}
      {[2], {:f, 32}}

  `Nx` works on `Emily.Backend`, `Emily.Compiler` makes programs of a `defn`, `Emily.Fast` has the fused kernels.
  """

  alias Emily.{Backend, Lower, Native, Telemetry, Tree}
  alias Nx.Tensor, as: T

  @typedoc "A reference to an MLX array, or a tensor of `Emily.Backend`."
  @type array :: Native.array() | Nx.Tensor.t()

  @doc """
  An array from its bytes: row-major, in the machine's byte order.

  `shape` is the list of its sizes, `type` a type of Nx that MLX has, as `{:f, 32}` or `:f32`. The bytes are copied. Raises an
  `ArgumentError` where they are not as many as shape and type say, and for other types.

      iex> array = Emily.from_binary(<<1, 2, 3, 4, 5, 6>>, [2, 3], {:u, 8})
      iex> {Emily.shape(array), Emily.to_binary(array)}
      {[2, 3], <<1, 2, 3, 4, 5, 6>>}

      iex> Emily.from_binary(<<1, 2, 3>>, [2], :u8)
      ** (ArgumentError) from_binary: shape [2] of type u8 takes 2 bytes, got 3
  """
  @spec from_binary(binary, [pos_integer], Nx.Type.t() | Nx.Type.short_t()) :: Native.array()
  def from_binary(data, shape, type),
    do: Native.from_binary(data, shape, type |> Nx.Type.normalize!() |> Lower.dtype())

  @doc """
  The bytes of an array, row-major, in the machine's byte order. They are computed where they are not yet.

  Reports `[:emily, :to_binary]`: see `Emily.Telemetry`. Raises an `Emily.Error` where MLX fails.

      iex> array = Emily.from_binary(<<1, 2>>, [2], :u8)
      iex> Emily.to_binary(array)
      <<1, 2>>
  """
  @spec to_binary(array) :: binary
  def to_binary(%T{data: %Backend{}} = tensor), do: Nx.to_binary(tensor)

  def to_binary(array) do
    array = array!(array, "to_binary/1")
    metadata = %{shape: Native.shape(array), type: type(array)}
    Telemetry.to_binary(metadata, fn -> Native.to_binary(array) end)
  end

  @doc """
  The sizes of an array, as a list. Nothing is computed.

      iex> Emily.from_binary(<<1, 2, 3, 4, 5, 6>>, [2, 3], :u8) |> Emily.shape()
      [2, 3]
  """
  @spec shape(array) :: [pos_integer]
  def shape(array), do: array |> array!("shape/1") |> Native.shape() |> Tuple.to_list()

  @doc """
  The type of an array, as Nx writes it. Nothing is computed.

  MLX's booleans, which Nx lacks, are bytes of 0 and 1: `{:u, 8}`.

      iex> Emily.from_binary(<<1::16-native>>, [], :bf16) |> Emily.dtype()
      {:bf, 16}
  """
  @spec dtype(array) :: Nx.Type.t()
  def dtype(array), do: array |> array!("dtype/1") |> type()

  @doc """
  Computes arrays and waits for them.

  Takes an array, a tensor, or whatever holds some: a list, a tuple, a map, a container of Nx. What is on other backends
  than `Emily.Backend` is there already. Reports `[:emily, :eval]`: see `Emily.Telemetry`. Raises an `Emily.Error` where MLX
  fails.

      iex> x = Nx.tensor([1, 2], backend: Emily.Backend)
      iex> Emily.eval(%{sum: Nx.add(x, 1), product: Nx.multiply(x, 2)})
      :ok
  """
  @spec eval(array | Nx.Container.t() | [array | Nx.Container.t()]) :: :ok
  def eval(arrays) do
    arrays = arrays!(arrays, "eval/1")
    Telemetry.eval(%{arrays: length(arrays)}, fn -> Native.eval(arrays) end)
  end

  @doc """
  Starts to compute arrays, and does not wait for them.

  Takes what `eval/1` takes, mostly a list.

      iex> x = Nx.tensor([1, 2], backend: Emily.Backend)
      iex> y = Nx.add(x, 1)
      iex> Emily.async_eval([y])
      :ok
      iex> Nx.to_list(y)
      [2, 3]
  """
  @spec async_eval([array | Nx.Container.t()] | array | Nx.Container.t()) :: :ok
  def async_eval(arrays), do: arrays |> arrays!("async_eval/1") |> Native.async_eval()

  defp array!(array, _function) when is_reference(array), do: array

  defp array!(%T{} = tensor, function) do
    # By Nx's types a backend's data has nothing in it but its name: dialyzer is not shown whose it is.
    case Map.fetch!(tensor, :data) do
      %Backend{device: device, ref: array} when device != :host -> array
      _ -> not_an_array(tensor, function)
    end
  end

  defp array!(other, function), do: not_an_array(other, function)

  @spec not_an_array(term, String.t()) :: no_return
  defp not_an_array(other, function) do
    raise ArgumentError,
          "Emily.#{function} expects an array or a tensor on Emily.Backend of a type that MLX has, got: " <>
            inspect(other, limit: 10)
  end

  defp type(array) do
    case Native.dtype(array) do
      :bool -> {:u, 8}
      dtype -> Nx.Type.normalize!(dtype)
    end
  end

  defp arrays!(list, function) when is_list(list) do
    if List.improper?(list),
      do: refuse(list, function),
      else: Enum.flat_map(list, &arrays!(&1, function))
  end

  defp arrays!(array, _function) when is_reference(array), do: [array]

  defp arrays!(tree, function) when is_map(tree) or is_tuple(tree) do
    if not is_struct(tree) or Nx.Container.impl_for(tree) != nil,
      do: tree |> Tree.tensors() |> Enum.flat_map(&computed(&1, function)),
      else: refuse(tree, function)
  end

  defp arrays!(other, function), do: refuse(other, function)

  defp computed(%T{data: %Nx.Defn.Expr{}} = tensor, function), do: refuse(tensor, function)
  defp computed(%T{data: %Backend{device: :host}}, _function), do: []
  defp computed(%T{data: %Backend{ref: array}}, _function), do: [array]
  defp computed(%T{}, _function), do: []

  @spec refuse(term, String.t()) :: no_return
  defp refuse(other, function) do
    raise ArgumentError,
          "Emily.#{function} expects arrays, tensors with numbers, or containers of them, got: " <>
            inspect(other, limit: 10)
  end
end
