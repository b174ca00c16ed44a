defmodule Emily.Stream do
  @moduledoc """
  Streams: each a queue of work on a device, beside the others.

  What a process computes goes to the default stream of its device, where it waits its turn among what other processes
  asked for. With a stream of its own, a process waits for its own work alone.

      iex> stream = Emily.Stream.new(:cpu)
      iex> x = Nx.tensor([1, 2, 3], backend: {Emily.Backend, device: :cpu})
      iex> Emily.Stream.with_stream(stream, fn -> Nx.add(x, 1) |> Nx.to_list() end)
      [2, 3, 4]
      iex> Emily.Stream.close(stream)
      :ok

  Tensors of all streams of a device can be used together. MLX keeps a stream for the life of the VM: one that nobody holds any
  more is given to the next `new/1`.
  """

  alias Emily.Native
  alias Emily.Native.Scoped

  @enforce_keys [:ref, :device]
  defstruct [:ref, :device]

  @typedoc "A stream, and its device."
  @type t :: %__MODULE__{ref: Native.stream(), device: Native.device_name()}

  @doc """
  A new stream on `:cpu`, `:gpu` or `{:gpu, index}`.

  Raises an `ArgumentError` for a device that is not there.

      iex> Emily.Stream.new(:cpu).device
      :cpu

      iex> Emily.Stream.new(:tpu)
      ** (ArgumentError) Emily.Stream.new/1: the device must be :cpu, :gpu or {:gpu, index}, got: :tpu
  """
  @spec new(:cpu | :gpu | {:gpu, non_neg_integer}) :: t
  def new(device) do
    device = Emily.Device.check!(device, "Emily.Stream.new/1: the device")
    %__MODULE__{ref: Native.stream_new(device), device: device}
  end

  @doc """
  Runs `fun`, whose operations on the stream's device go to the stream, and answers what it gives.

  It is so for the calling process, whether it computes with Nx's functions or calls what `Emily.Compiler` made; processes that
  it starts have the default stream. Of streams in each other the inner one counts, and when `fun` ends or raises, the
  stream is what it was before. Partitions of an `Nx.Serving` have streams of their own.

  Operations raise an `ArgumentError` on a closed stream.

      iex> [outer, inner] = [Emily.Stream.new(:cpu), Emily.Stream.new(:cpu)]
      iex> x = Nx.tensor([1, 2, 3], backend: {Emily.Backend, device: :cpu})
      iex> Emily.Stream.with_stream(outer, fn ->
      ...>   y = Emily.Stream.with_stream(inner, fn -> Nx.multiply(x, 2) end)
      ...>   Nx.add(x, y) |> Nx.to_list()
      ...> end)
      [3, 6, 9]
  """
  @spec with_stream(t, (-> result)) :: result when result: term
  def with_stream(%__MODULE__{} = stream, fun) when is_function(fun, 0),
    do: Scoped.set(__MODULE__, stream, fun)

  def with_stream(stream, fun) do
    raise ArgumentError,
          "Emily.Stream.with_stream/2 expects a stream and a function without arguments, got: " <>
            "#{inspect(stream, limit: 10)} and #{inspect(fun, limit: 10)}"
  end

  @doc """
  Closes a stream: whoever waits for its work, or reads what it has not computed, gets an `Emily.Error`, and its next
  operations raise an `ArgumentError`. What it has computed stays. A stream may be closed twice.

      iex> stream = Emily.Stream.new(:cpu)
      iex> Emily.Stream.close(stream)
      :ok
      iex> x = Nx.tensor([1, 2, 3], backend: {Emily.Backend, device: :cpu})
      iex> Emily.Stream.with_stream(stream, fn -> Nx.add(x, 1) end)
      ** (ArgumentError) the stream is closed
  """
  @spec close(t) :: :ok
  def close(%__MODULE__{ref: ref}), do: Native.stream_close(ref)

  def close(other) do
    raise ArgumentError,
          "Emily.Stream.close/1 expects a stream, got: #{inspect(other, limit: 10)}"
  end

  @doc false
  # Where the calling process computes what it computes on a device. Streams stay.
  def of(device) when is_atom(device) or is_tuple(device) do
    case :erlang.get(__MODULE__) do
      %__MODULE__{device: ^device, ref: ref} -> ref
      _ -> device
    end
  end

  def of(stream), do: stream
end
