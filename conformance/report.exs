defmodule Emily.Conformance.Report do
  use GenServer
  def init(_), do: {:ok, %{}}
  def handle_cast(_, s), do: {:noreply, s}
end
