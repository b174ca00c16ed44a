defmodule Emily.Telemetry do
  @moduledoc """
  The events that Emily reports through `:telemetry`.

  ## Fallbacks

  An operation that MLX cannot do is computed by `Nx.BinaryBackend`, which is slow. Each time this
  happens `Emily.Fallback` reports a span:

    * `[:emily, :fallback, :start]` - measurements `:monotonic_time`, `:system_time`
    * `[:emily, :fallback, :stop]` - measurements `:monotonic_time`, `:duration`
    * `[:emily, :fallback, :exception]` - as `:stop`, with `:kind`, `:reason` and `:stacktrace` of
      what was raised in the metadata

  The metadata of all three:

    * `:op` - the name of Nx's callback, for instance `:reduce`
    * `:shapes` - the shapes of the tensors given
    * `:types` - their types
    * `:reason` - why the operation left MLX. In `:exception` events this key holds the exception,
      as `:telemetry.span/3` defines, and `:fallback_reason` holds the reason

  ## Example

      iex> :telemetry.attach("emily-doc", [:emily, :fallback, :stop], &Emily.Telemetry.echo/4, self())
      iex> t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
      iex> Nx.reduce(t, 0, fn x, y -> Nx.subtract(x, y) end) |> Nx.to_number()
      2
      iex> :telemetry.detach("emily-doc")
      iex> receive do {[:emily, :fallback, :stop], metadata} -> {metadata.op, metadata.shapes} end
      {:reduce, [{3}, {}]}
  """

  @doc "A handler that sends `{event, metadata}` to the process given as its config."
  @spec echo([atom], map, map, pid) :: term
  def echo(event, _measurements, metadata, pid), do: send(pid, {event, metadata})
end
