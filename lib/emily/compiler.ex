defmodule Emily.Compiler do
  @moduledoc """
  A compiler for `defn` that makes one native program of a function.

      Nx.Defn.jit(&Nx.add/2, compiler: Emily.Compiler).(1, 2)

  The traced expression becomes a program once; each call is one call into MLX, which builds and
  schedules the whole graph. Operations mean what they mean on `Emily.Backend`, which the results
  live on. Of a `cond` only the taken branch runs: a loop, a hook or a call that several branches share runs
  once, in the first that is taken. (In a graph that would grow many times over by that, it runs before them,
  though none may be taken.) A `while` runs without coming back to Elixir. Both nest up to 1000 deep.

  Tensors on `Emily.Backend` are passed by reference. Those of other backends are copied in each call:
  put parameters on `Emily.Backend` once.

  Hooks and the functions of `Nx.runtime_call/4` run in the calling process, amid the program, which
  does not wait for a hook to return before it goes on. An operation that MLX cannot do runs there too,
  by `Emily.Backend`, and is counted as `Emily.Fallback` says.

  ## Options

    * `:device` - `:cpu`, `:gpu` or `{:gpu, index}`. Without it, the device of the default backend if that is
      `Emily.Backend`, and else MLX's default device. A device that is not there is refused with an
      `ArgumentError`
    * `:hooks` - functions by the names of hooks, which Nx calls `io_call` after 0.13, as `Nx.Defn.jit/2` describes
    * `:cache` - whether a compiled function is kept for the next call with the same function, shapes and
      types, as `Emily.Compiler.Cache` describes. Defaults to `true`. What `Nx.Defn.compile/3` gives
      keeps its program without it
    * `:native` - whether the function becomes a program. With `false` it is evaluated operation by operation, each by
      `Emily.Backend`, as to look for what goes wrong. Defaults to `true`
    * `:native_fallback` - what to do where MLX cannot do an operation of a program, or the function has a type that MLX
      lacks, and is evaluated as a whole, each operation by `Emily.Backend`: `:raise` raises when the function is compiled,
      `:warn` evaluates and logs a warning then, `:eval` evaluates. Defaults to `:raise` where `Emily.Fallback` is set to
      raise, and else to `:eval`
    * `:max_concurrency` - how many partitions an `Nx.Serving` with `partitions: true` has, each with a
      stream of its own. Where the device is the GPU, they go round among the cards, the first to the first: with as many as
      there are cards, each has one. With `device: {:gpu, index}` all are on that card. Defaults to 1
    * `:partition` - the number of such a partition, from 0
    * `:fuse` - whether runs of elementwise operations, and a reduction of what they give, become one kernel. Without
      it, or with `nil`, they do on a CPU, by one of Emily's own, which computes what the operations do, bit for bit;
      with `false` they do not. With `true` they do on a GPU too, where MLX compiles the program (`mx.compile`) when it
      is first run: its kernels do not round what lies between their operations, so that the last digits may differ.
      Functions with conditions, loops, calls of Elixir or linear algebra, which MLX cannot compile, keep their operations
      apart on a GPU
    * `:check_finite` - whether the first operation that gives a NaN or an infinity raises, as `Emily.Finite` describes: the
      function is evaluated operation by operation. Defaults to `config :emily, check_finite: ...`
    * `:donate` - the positions of arguments, from 0, whose tensors the function takes, as if they were marked by
      `Nx.donatable`, which Nx has from 1.0 on; see below. Positions that a function does not have are left alone, so that
      the option may be passed on to several. Defaults to `[]`
    * `:garbage_collect` - whether the calling process collects its garbage after each call. Defaults
      to `false`
    * `:debug_options` - `[log: level]` logs each compilation and each hit of the cache at a level of
      `Logger`

  Options of `Axon.build/2` and `Axon.Loop.run/4`, which Axon forwards to compilers, are left alone; others
  are refused with an `ArgumentError`.

  ## Donation

  The tensors of a donated argument on `Emily.Backend` are the function's from the call on: whoever uses one later gets an
  `ArgumentError`, also where the call raises. (Those that the function does not use stay as they are.) What was computed from
  one before, and binaries that were read from it, stay what they were. On a CPU the function then runs in an order
  that needs little memory: each tensor ends with its last use, and the next that is computed elementwise, or by updating a
  part, takes its place. So a step of training that is given its state has no second state beside it:

      iex> step = Nx.Defn.jit(&Nx.add/2, compiler: Emily.Compiler, donate: [0])
      iex> state = Nx.tensor([1.0, 2.0], backend: Emily.Backend)
      iex> step.(state, 1) |> Nx.to_list()
      [2.0, 3.0]
      iex> Nx.to_list(state)
      ** (ArgumentError) the tensor was donated to a call, which has taken its memory: use what that call has returned

  ## Meshes

  `Nx.Defn.shard_jit/3` takes two options more: `:input_shardings`, a list with a map for each argument, of its axes to lists of mesh axes, and
  `:devices`, the device of each partition. [Devices](devices.md#one-function-over-several-devices) says what each operation does with
  tensors that are split, and how partitions exchange them.

      iex> mesh = %Nx.Mesh{name: "pair", shape: {2}}
      iex> options = [compiler: Emily.Compiler, input_shardings: [%{0 => [0]}], devices: [:cpu, :cpu]]
      iex> share = Nx.Defn.shard_jit(&Nx.divide(&1, Nx.sum(&1)), mesh, options)
      iex> share.([[Nx.tensor([1, 3])], [Nx.tensor([2, 2])]]) |> Enum.map(&Nx.to_list/1)
      [[0.125, 0.375], [0.25, 0.25]]

  ## Errors

  An operation that MLX would refuse is refused when the function is compiled, with an `ArgumentError`
  that names it.

  ## Example

      iex> add = Nx.Defn.jit(&Nx.add/2, compiler: Emily.Compiler)
      iex> sum = add.(Nx.tensor([1, 2]), Nx.tensor([3, 4]))
      iex> Nx.to_flat_list(sum)
      [4, 6]
      iex> sum.data.__struct__
      Emily.Backend
  """

  @behaviour Nx.Defn.Compiler

  alias Emily.{Backend, Device}
  alias Emily.Compiler.{Cache, CodeVersion, Executable, Options, Shard, Streams}
  alias Nx.Defn.Composite
  alias Nx.Tensor, as: T

  @impl true
  def __partitions_options__(opts) do
    # Nx.Serving leaves the compiler among its options.
    options = opts |> Keyword.delete(:compiler) |> Options.validate!()
    partitions(opts, options, Device.cards())
  end

  @doc false
  # The options of each partition, where there are these cards. A card that is named is the only one.
  def partitions(opts, options, cards) do
    spread? = options.device == :gpu and not match?({:gpu, _}, opts[:device])

    for partition <- 0..(options.max_concurrency - 1) do
      opts = Keyword.put(opts, :partition, partition)

      if spread?,
        do: Keyword.put(opts, :device, Enum.at(cards, rem(partition, length(cards)))),
        else: opts
    end
  end

  @impl true
  def __to_backend__(opts), do: {Backend, device: Options.validate!(opts).device}

  @impl true
  def __shard_jit__(key, mesh, vars, fun, args_list, opts),
    do: Shard.run(key, mesh, vars, fun, args_list, opts)

  @impl true
  def __jit__(key, vars, fun, args_list, opts) do
    __compile__(key, vars, fun, opts).(args_list)
  end

  @impl true
  def __compile__(key, vars, fun, opts) do
    options = Options.validate!(opts)
    stream = Streams.fetch(options.device, options.partition)

    donated = donated(vars, options.donate)

    executable =
      tidied(fn ->
        Cache.fetch(cache_key(key, vars, options), options, fn ->
          Executable.compile(key, fun.(vars), options)
        end)
      end)
      |> Executable.traced(fn -> fun.(vars) end)

    fn args_list ->
      for args <- args_list do
        result =
          Executable.run(executable, args, donated, Emily.Stream.of(stream), options.hooks)

        if options.garbage_collect, do: :erlang.garbage_collect()
        result
      end
    end
  end

  # Words of a heap, 2 MB.
  @garbage 250_000

  # What a large program was made of would stay with who waits for calls, as a serving does, until the next collection.
  defp tidied(fetch) do
    {:total_heap_size, before} = Process.info(self(), :total_heap_size)
    executable = fetch.()
    {:total_heap_size, now} = Process.info(self(), :total_heap_size)
    if now - before > @garbage, do: :erlang.garbage_collect()
    executable
  end

  # The numbers of the tensors of the arguments at these positions.
  defp donated(_vars, []), do: []

  defp donated(vars, positions) do
    {numbers, _count} =
      vars
      |> Enum.with_index()
      |> Enum.flat_map_reduce(0, fn {var, position}, count ->
        next = count + Composite.count(var)
        {if(position in positions, do: Enum.to_list(count..(next - 1)//1), else: []), next}
      end)

    numbers
  end

  # What the program depends on.
  defp cache_key(key, vars, options) do
    templates =
      for var <- vars do
        Composite.traverse(var, fn %T{} = t -> {t.type, t.shape, t.names, t.vectorized_axes} end)
      end

    {key, templates, options.device, options.native, options.check_finite, options.fallback,
     options.fuse, Map.keys(options.hooks), Emily.Bounds.enabled?(), CodeVersion.current()}
  end
end
