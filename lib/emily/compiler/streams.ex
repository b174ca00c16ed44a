defmodule Emily.Compiler.Streams do
  @moduledoc false
  # The streams of partitions: one for each device and number, for as long as the VM lives.

  alias Emily.Native

  @doc "Where a partition computes; without a number, the device's own stream."
  @spec fetch(Emily.Device.t(), non_neg_integer | nil) :: Native.device()
  def fetch(device, nil), do: device

  def fetch(device, partition) do
    key = {__MODULE__, device, partition}
    :persistent_term.get(key, nil) || create(key, device)
  end

  # One process at a time, so that none makes a stream that nobody uses.
  defp create(key, device) do
    :global.trans({key, self()}, fn -> created(key, device) end, [node()])
  end

  defp created(key, device) do
    with nil <- :persistent_term.get(key, nil) do
      stream = Native.stream_new(device)
      :persistent_term.put(key, stream)
      stream
    end
  end
end
