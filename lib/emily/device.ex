defmodule Emily.Device do
  @moduledoc false
  # What names a device: `:cpu`, `:gpu` for the first card, or `{:gpu, index}` for any, which is written `:gpu` where the
  # index is 0.

  alias Emily.Native

  @type t :: :cpu | :gpu | {:gpu, pos_integer}

  @doc "Whether a device is a GPU."
  defguard is_gpu(device)
           when device == :gpu or
                  (is_tuple(device) and tuple_size(device) == 2 and elem(device, 0) == :gpu)

  @doc "A device as it is written, or `:error` for what names none."
  @spec normal(term) :: {:ok, t} | :error
  def normal(device) when device in [:cpu, :gpu], do: {:ok, device}
  def normal({kind, 0}) when kind in [:cpu, :gpu], do: {:ok, kind}
  def normal({:gpu, index}) when is_integer(index) and index > 0, do: {:ok, {:gpu, index}}
  def normal(_other), do: :error

  @doc "A device that is there, as it is written. `what` is who takes it, for the `ArgumentError` about any other."
  @spec check!(term, String.t()) :: t
  def check!(term, what) do
    case normal(term) do
      {:ok, :cpu} -> :cpu
      {:ok, device} -> if device in Native.devices(), do: device, else: missing!(device, what)
      :error -> refuse!(term, what)
    end
  end

  @spec refuse!(term, String.t()) :: no_return
  defp refuse!(term, what) do
    raise ArgumentError,
          "#{what} must be :cpu, :gpu or {:gpu, index}, got: #{inspect(term, limit: 10)}"
  end

  @spec missing!(t, String.t()) :: no_return
  defp missing!(device, what) do
    raise ArgumentError, what <> ": " <> missing(device, cards())
  end

  defp missing(_device, []) do
    "this MLX has no GPU. Build Emily with EMILY_MLX=cuda12 or cuda13 on " <>
      "Linux with an NVIDIA GPU, or on a Mac with Apple silicon; or use :cpu"
  end

  defp missing(device, cards) do
    there = Enum.map_join([:cpu | cards], ", ", &inspect/1)
    "there is no #{inspect(device)}; this machine has #{there}"
  end

  @doc "The GPUs."
  @spec cards() :: [t]
  def cards, do: Enum.filter(Native.devices(), &is_gpu/1)

  @doc "Where an operation on tensors of two devices runs: on a GPU before the CPU, and of two GPUs on the first tensor's."
  @spec of_both(t, t) :: t
  def of_both(:cpu, device), do: device
  def of_both(device, _other), do: device

  @doc "A device as text."
  @spec name(t | :host) :: String.t()
  def name({kind, index}), do: "#{kind}:#{index}"
  def name(device), do: Atom.to_string(device)
end
