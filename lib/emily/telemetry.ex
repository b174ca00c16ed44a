defmodule Emily.Telemetry do
  @moduledoc """
  The events that Emily reports through `:telemetry`.

  Durations and times are in native units, as `System.convert_time_unit/3` takes them.

  | event | when |
  |---|---|
  | `[:emily, :evaluation]` | a tensor was read that had to be computed or waited for |
  | `[:emily, :fallback, :start \\| :stop \\| :exception]` | an operation leaves MLX |
  | `[:emily, :compile, :start \\| :stop \\| :exception]` | `Emily.Compiler` makes a program of a function |
  | `[:emily, :shard]` | a function over a mesh is compiled |
  | `[:emily, :to_binary, :start \\| :stop \\| :exception]` | a tensor or an array is read |
  | `[:emily, :eval, :start \\| :stop \\| :exception]` | `Emily.eval/1` is called |
  | `[:emily, :memory]` | `memory/0` is called |
  | `[:emily, :memory, :stats]` | `memory_stats/0` is called |

  ## Evaluation

  Operations are lazy, so the time goes where a tensor is read: into `Nx.to_binary/1`,
  `Nx.to_number/1`, `inspect/1`, or a transfer to another backend.

  `[:emily, :evaluation]` has the measurements

    * `:duration` - how long the process waited for MLX
    * `:bytes` - the size of what was read

  and the metadata

    * `:shape`, `:type` - those of the tensor
    * `:device` - `:cpu`, `:gpu` or `{:gpu, index}`

  A tensor that is computed already gives no event, nor does one whose evaluation fails.

      iex> :telemetry.attach("doc", [:emily, :evaluation], &Emily.Telemetry.echo/4, self())
      iex> t = Nx.tensor([1, 2, 3], type: :u8, backend: Emily.Backend)
      iex> Nx.add(t, 1) |> Nx.to_list()
      [2, 3, 4]
      iex> :telemetry.detach("doc")
      iex> receive do
      ...>   {[:emily, :evaluation], %{bytes: bytes}, metadata} -> {bytes, metadata.shape, metadata.type}
      ...> end
      {3, {3}, {:u, 8}}

  ## Reading

  Whatever MLX holds and is read, by `Nx.to_binary/1`, `inspect/1`, a transfer or `Emily.to_binary/1`, is a span, whether it was computed
  already or not:

    * `[:emily, :to_binary, :start]` - measurements `:monotonic_time`, `:system_time`
    * `[:emily, :to_binary, :stop]` - measurements `:monotonic_time`, `:duration`, `:bytes` (how many were read)
    * `[:emily, :to_binary, :exception]` - as for fallbacks

  The metadata are the `:shape` and the `:type` of what is read. So is a call of `Emily.eval/1`, as `[:emily, :eval, ...]`, whose
  metadata has `:arrays`, how many there are.

      iex> :telemetry.attach("doc", [:emily, :eval, :stop], &Emily.Telemetry.echo/4, self())
      iex> t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
      iex> Emily.eval({Nx.add(t, 1), Nx.add(t, 2)})
      iex> :telemetry.detach("doc")
      iex> receive do {[:emily, :eval, :stop], %{duration: _}, metadata} -> metadata.arrays end
      2

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

  For instance:

      iex> :telemetry.attach("doc", [:emily, :fallback, :stop], &Emily.Telemetry.echo/4, self())
      iex> t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
      iex> Nx.reduce(t, 0, fn x, y -> Nx.subtract(x, y) end) |> Nx.to_number()
      2
      iex> :telemetry.detach("doc")
      iex> receive do {[:emily, :fallback, :stop], _, metadata} -> {metadata.op, metadata.shapes} end
      {:reduce, [{3}, {}]}

  ## Compilation

  `Emily.Compiler` reports a span for each program that it makes, so not where it finds one in its cache:

    * `[:emily, :compile, :start]` - measurements `:monotonic_time`, `:system_time`
    * `[:emily, :compile, :stop]` - measurements `:monotonic_time`, `:duration`, `:operations` (how
      many the program has) and `:calls` (how many places of it call back into Elixir: hooks and
      fallbacks)
    * `[:emily, :compile, :exception]` - as for fallbacks

  The metadata of all three:

    * `:function` - the function, or what names it
    * `:device` - the device that it is compiled for

  For instance:

      iex> :telemetry.attach("doc", [:emily, :compile, :stop], &Emily.Telemetry.echo/4, self())
      iex> fun = fn x -> Nx.sin(Nx.cos(x)) end
      iex> Nx.Defn.compile(fun, [Nx.template({3}, :f32)], compiler: Emily.Compiler)
      iex> :telemetry.detach("doc")
      iex> receive do
      ...>   {[:emily, :compile, :stop], measurements, %{function: ^fun}} -> measurements.operations
      ...> end
      2

  ## Functions over a mesh

  `[:emily, :shard]` is reported when a function of `Nx.Defn.shard_jit/3` is compiled, besides the programs of its segments. The
  measurements are `:partitions`, `:segments`, `:exchanges`, how often partitions take from one another, and `:gathers`, how many of
  these made a split tensor whole for want of a rule. The metadata:

    * `:function`, `:mesh` - what was compiled
    * `:gathered` - `{operation, shape}` of each operation that made a tensor whole

  For instance:

      iex> :telemetry.attach("doc", [:emily, :shard], &Emily.Telemetry.echo/4, self())
      iex> mesh = %Nx.Mesh{name: "pair", shape: {2}}
      iex> options = [compiler: Emily.Compiler, device: :cpu, input_shardings: [%{0 => [0]}]]
      iex> results = Nx.Defn.shard_jit(&Nx.sort/1, mesh, options).([[Nx.tensor([4, 1])], [Nx.tensor([3, 2])]])
      iex> :telemetry.detach("doc")
      iex> Enum.map(results, &Nx.to_list/1)
      [[1, 2, 3, 4], [1, 2, 3, 4]]
      iex> receive do
      ...>   {[:emily, :shard], %{gathers: gathers}, %{gathered: gathered}} -> {gathers, gathered}
      ...> end
      {1, [sort: {4}]}

  ## Memory

  `[:emily, :memory]` is reported by `memory/0`, which is made to be called now and then, for instance
  by `:telemetry_poller`:

      {:telemetry_poller, measurements: [{Emily.Telemetry, :memory, []}], period: 10_000}
  """

  @doc """
  Reports how much memory MLX has, as the event `[:emily, :memory]`.

  Its measurements, in bytes: `:active` in arrays, `:cache` freed and kept for the next arrays, `:peak`
  the most that was active, and `:limit`. No metadata. See `Emily.Native.memory/0`.

      iex> :telemetry.attach("doc", [:emily, :memory], &Emily.Telemetry.echo/4, self())
      iex> Emily.Telemetry.memory()
      :ok
      iex> :telemetry.detach("doc")
      iex> receive do {[:emily, :memory], bytes, _} -> bytes |> Map.keys() |> Enum.sort() end
      [:active, :cache, :limit, :peak]
  """
  @spec memory() :: :ok
  def memory, do: :telemetry.execute([:emily, :memory], Emily.Native.memory(), %{})

  @doc """
  Reports `Emily.Memory.stats/0` as the measurements of the event `[:emily, :memory, :stats]`, without metadata.

      iex> :telemetry.attach("doc", [:emily, :memory, :stats], &Emily.Telemetry.echo/4, self())
      iex> Emily.Telemetry.memory_stats()
      :ok
      iex> :telemetry.detach("doc")
      iex> receive do {[:emily, :memory, :stats], bytes, _} -> bytes |> Map.keys() |> Enum.sort() end
      [:active, :cache, :peak]
  """
  @spec memory_stats() :: :ok
  def memory_stats, do: :telemetry.execute([:emily, :memory, :stats], Emily.Memory.stats(), %{})

  @doc "A handler that sends `{event, measurements, metadata}` to the process given as its config."
  @spec echo([atom], map, map, pid) :: term
  def echo(event, measurements, metadata, pid), do: send(pid, {event, measurements, metadata})

  @doc false
  # Reports that a tensor's bytes were computed, or waited for, since `start`.
  def evaluation(binary, start, %Nx.Tensor{shape: shape, type: type, data: %{device: device}}) do
    :telemetry.execute(
      [:emily, :evaluation],
      %{duration: System.monotonic_time() - start, bytes: byte_size(binary)},
      %{shape: shape, type: type, device: device}
    )
  end

  @doc false
  # Reports the reading of a tensor or an array, by `read`.
  def to_binary(metadata, read) do
    :telemetry.span([:emily, :to_binary], metadata, fn ->
      binary = read.()
      {binary, %{bytes: byte_size(binary)}, metadata}
    end)
  end

  @doc false
  # Reports the evaluation of arrays.
  def eval(metadata, evaluate),
    do: :telemetry.span([:emily, :eval], metadata, fn -> {evaluate.(), metadata} end)
end
