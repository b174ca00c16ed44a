defmodule Emily.Backend do
  @moduledoc """
  An Nx backend on Apple's MLX.

      Nx.default_backend(Emily.Backend)
      Nx.default_backend({Emily.Backend, device: :gpu})
      Nx.default_backend({Emily.Backend, device: {:gpu, 1}})

  Operations return at once: they add to a lazy graph, which MLX computes when a tensor is read
  (`Nx.to_binary/1`, `inspect`, ...). What each operation means is said in `Emily.Lower`; what MLX
  cannot do goes through `Emily.Fallback`.

  ## Options

    * `:device` - `:cpu`, `:gpu` or, of several cards, `{:gpu, index}`; MLX's default device without it. `:gpu` is
      `{:gpu, 0}`, the first card. A device that this build of MLX or this machine lacks is refused with an
      `ArgumentError`

  An operation on tensors of the CPU and of a GPU runs on the GPU, and one on tensors of several cards on that of the first
  of them. Tensors of other backends are moved to the device of the others. Between the CPU and a GPU nothing is copied by
  Emily; from one card to another a tensor is computed, then copied, as [Devices](devices.md#several-cards) describes.

  ## Types

  u8 to u64, s8 to s64, f16, bf16, f32, f64 and c64. f64 exists on the CPU only, where its
  functions are within two units of the last place, but for `sigmoid`, which rounds at each step as in Nx.

  MLX has no c128, f8, f8_e4m3fn, s2, s4, u2 and u4. Tensors of these types are held by
  `Nx.BinaryBackend`, within a tensor of this backend whose device is `:host`, and so is computed what has
  one for an operand or a result: each operation is counted, reported or refused by `Emily.Fallback`.
  Results of other types are MLX's again.

      iex> x = Nx.tensor([1.0, 2.0], type: :f64, backend: {Emily.Backend, device: :cpu})
      iex> spectrum = Emily.Fallback.with_mode(:silent, fn -> Nx.fft(x) end)
      iex> {spectrum.type, spectrum.data.device}
      {{:c, 128}, :host}
      iex> Emily.Fallback.with_mode(:silent, fn -> Nx.real(spectrum) end)
      #Nx.Tensor<
        f64[2]
        Emily.Backend<cpu>
        [3.0, -1.0]
      >

  ## Other nodes

  A tensor stays with its node of distributed Erlang, and is refused on another one, with the remedy:
  send `Nx.backend_copy(tensor, Nx.BinaryBackend)`. Nodes with an `Nx.Serving` of the same name do that in
  the last argument of `Nx.Serving.batched_run/3` and in `Nx.Serving.distributed_postprocessing/2`.

  ## Inspection

  Inspecting a tensor shows the backend and its device. `config :emily, add_backend_on_inspect:
  false` leaves that out.

  ## Example

      iex> t = Nx.tensor([1, 2, 3], backend: {Emily.Backend, device: :cpu})
      iex> Nx.add(t, t)
      #Nx.Tensor<
        s32[3]
        Emily.Backend<cpu>
        [2, 4, 6]
      >
  """

  import Emily.Device, only: [is_gpu: 1]

  @behaviour Nx.Backend
  # By Nx's types a backend's data has nothing in it but its name: see `tensor/3`.
  @dialyzer :no_behaviours

  @enforce_keys [:ref, :device]
  defstruct [:ref, :device]

  alias Emily.Backend, as: B
  alias Emily.Backend.Pointer
  alias Emily.{Bounds, Device, Fallback, Finite, Host, Lower, Native, Telemetry, Watch}
  alias Nx.Tensor, as: T

  @typedoc """
  What a tensor holds: an array of MLX's and the device that computes with it. On its way into an operation it may be
  an expression in the array's place (`Emily.Expr`). Of a type that MLX lacks, what `Nx.BinaryBackend` holds.
  """
  @type t ::
          %__MODULE__{ref: Native.array() | Emily.Expr.t(), device: Native.device_name()}
          | %__MODULE__{ref: struct(), device: :host}

  @doc false
  # A tensor with the shape, type and names of another that holds an array or an expression of a device, or what the
  # host holds. By Nx's types a backend's data has nothing in it but its name, so dialyzer is told, and by
  # `Map.replace!/3` sees, no more than that it is a struct.
  @spec tensor(struct(), Native.array() | Emily.Expr.t() | Host.t(), Native.device_name() | :host) ::
          struct()
  def tensor(template, ref, device),
    do: Map.replace!(template, :data, %B{ref: ref, device: device})

  ## Options

  @impl true
  def init(opts), do: [device: device(opts)]

  # Nx hands on the options of `backend: {Emily.Backend, opts}` as they are.
  defp device(opts) do
    case Native.Options.validate!(opts, [:device], "Emily.Backend")[:device] do
      nil -> Native.default_device()
      :cpu -> :cpu
      device -> Device.check!(device, "Emily.Backend: :device")
    end
  end

  ## New tensors

  @impl true
  def constant(out, number, opts), do: create(:constant, out, [number], opts)

  @impl true
  def iota(out, axis, opts), do: create(:iota, out, [axis], opts)

  @impl true
  def eye(out, opts), do: create(:eye, out, [], opts)

  defp create(name, out, args, opts) do
    Finite.configured?()

    if Host.held?(out),
      do: Host.create(name, out, args, device(opts)),
      else: operation(name, args, Lower.op(name, out, args), out, device(opts))
  end

  @impl true
  def from_binary(%{type: type} = out, binary, opts) do
    device = device(opts)
    binary = if is_bitstring(binary), do: binary, else: IO.iodata_to_binary(binary)

    if Lower.type?(type),
      do: array_of(out, binary, device),
      else: Host.create(:from_binary, out, [binary], device)
  end

  defp array_of(%{shape: shape, type: type} = out, binary, device) do
    Finite.configured?()
    refuse_f64(type, device)
    tensor(out, Native.from_binary(binary, shape, Lower.dtype(type), device), device)
  end

  ## Moving

  @impl true
  def to_binary(%T{data: %B{device: :host}} = tensor, limit),
    do: Nx.BinaryBackend.to_binary(Host.plain(tensor), limit)

  def to_binary(%T{shape: shape, type: type, data: %B{}} = tensor, limit),
    do: Telemetry.to_binary(%{shape: shape, type: type}, fn -> read_up_to(limit, tensor) end)

  defp read_up_to(limit, %T{type: {_, bits}, data: %B{ref: ref, device: device}} = tensor) do
    size = size(tensor)

    if limit >= size do
      read(ref, size, tensor)
    else
      shape = Tuple.to_list(Native.shape(ref))
      zeros = List.duplicate(0, length(shape))
      ones = List.duplicate(1, length(shape))
      sizes = beginning(shape, limit)
      part = execute({:slice, ref, zeros, sizes, ones}, device)
      binary_part(read(part, Enum.product(sizes), tensor), 0, limit * div(bits, 8))
    end
  end

  # The sizes of a slice that begins with the first elements: inner axes as a whole before more of the outer.
  defp beginning(shape, count) do
    {sizes, _} =
      shape
      |> Enum.reverse()
      |> Enum.map_reduce(max(count, 1), fn size, count ->
        {min(size, count), div(count + size - 1, size)}
      end)

    Enum.reverse(sizes)
  end

  @doc false
  # The tensor with an array of its type: Nx's evaluator names the type that an expression says, and Nx's gradients
  # of loops say another than they compute.
  def settled(%T{data: %B{device: :host}} = tensor), do: tensor

  def settled(%T{type: type, data: %B{ref: ref, device: device}} = tensor) do
    dtype = Lower.dtype(type)

    if Native.dtype(ref) == dtype,
      do: tensor,
      else: tensor(tensor, execute({:astype, ref, dtype}, device), device)
  rescue
    error in ArgumentError -> reraise explain(error, tensor.data.ref), __STACKTRACE__
  end

  # An array that is computed already is read in a fraction of the time that an event takes.
  defp read(ref, size, %T{type: {_, bits} = type} = tensor) do
    case Native.to_binary(ref, Lower.dtype(type), &Telemetry.evaluation(&1, &2, tensor)) do
      :other ->
        read(settled(tensor(tensor, ref, tensor.data.device)).data.ref, size, tensor)

      binary when 8 * byte_size(binary) == size * bits ->
        binary

      _ ->
        raise ArgumentError,
              "an array of shape #{inspect(Native.shape(ref))} is no #{inspect(Nx.to_template(tensor))}"
    end
  rescue
    error in ArgumentError -> reraise explain(error, ref), __STACKTRACE__
  end

  defp size(%T{shape: shape, vectorized_axes: []}), do: Tuple.product(shape)

  defp size(%T{shape: shape, vectorized_axes: axes}) do
    Enum.reduce(axes, Tuple.product(shape), fn {_, size}, product -> size * product end)
  end

  @impl true
  def backend_copy(tensor, backend, opts), do: backend_transfer(tensor, backend, opts)

  @impl true
  def backend_transfer(tensor, Nx.Tensor, opts) do
    backend_transfer(tensor, Nx.BinaryBackend, opts)
  end

  def backend_transfer(%T{data: %B{device: :host}} = tensor, Emily.Backend, opts),
    do: Host.hold(tensor, Host.plain(tensor), device(opts))

  # The memory is shared by the CPU and a GPU, and arrays never change.
  def backend_transfer(%T{type: type, data: %B{device: from}} = tensor, Emily.Backend, opts) do
    device = device(opts)
    refuse_f64(type, device)
    ref = settled(tensor).data.ref
    tensor(tensor, if(cards?(from, device), do: copied(ref, device), else: ref), device)
  end

  def backend_transfer(tensor, backend, opts) do
    backend.from_binary(tensor, to_binary(tensor, size(tensor)), opts)
  end

  defp cards?(from, to), do: from != to and is_gpu(from) and is_gpu(to)

  # From one card to another. It is computed before, since MLX would have the thread that schedules wait for it, and move
  # it to memory that both share.
  defp copied(ref, device) do
    Native.eval(ref)
    execute(copy(ref), device)
  end

  @doc false
  # The same elements in memory of their own: a choice is never a view.
  def copy(ref), do: {:contiguous, {:where, {:full, [], 1, :bool}, ref, ref}}

  # The array's memory is freed when the last reference to it is collected.
  @impl true
  def backend_deallocate(_tensor), do: :ok

  @impl true
  def to_batched(%{shape: out_shape} = out, %{shape: shape} = tensor, opts) do
    batch = elem(out_shape, 0)
    size = elem(shape, 0)
    full = div(size, batch)
    rest = rem(size, batch)
    last = if rest != 0 and opts[:leftover] == :repeat, do: full, else: full - 1

    Stream.map(0..last//1, fn
      ^full ->
        tail = rows(tensor, full * batch, rest)
        head = rows(tensor, 0, batch - rest)
        concatenate(out, [tail, head], 0)

      at ->
        rows(tensor, at * batch, batch)
    end)
  end

  defp rows(%{shape: shape} = tensor, start, count) do
    lengths = [count | tl(Tuple.to_list(shape))]
    starts = [start | Enum.map(tl(lengths), fn _ -> 0 end)]
    out = %{tensor | shape: put_elem(shape, 0, count)}
    slice(out, tensor, starts, lengths, Enum.map(lengths, fn _ -> 1 end))
  end

  @impl true
  def to_pointer(tensor, opts), do: Pointer.address(tensor, opts)

  @impl true
  def from_pointer(pointer, type, shape, backend_opts, opts),
    do: Pointer.tensor(pointer, type, shape, device(backend_opts), opts)

  @impl true
  def inspect(%T{data: %B{device: device}} = tensor, inspect_opts) do
    size = size(tensor)
    limit = if inspect_opts.limit == :infinity, do: size, else: min(inspect_opts.limit + 1, size)
    doc = shown(tensor, limit, inspect_opts)

    if Application.get_env(:emily, :add_backend_on_inspect, true) do
      Inspect.Algebra.concat([
        "Emily.Backend<#{Device.name(device)}>",
        Inspect.Algebra.line(),
        doc
      ])
    else
      doc
    end
  end

  # Nx shows no numbers of less than a byte.
  defp shown(%T{type: {kind, bits}} = tensor, limit, inspect_opts) when bits < 8 do
    bytes = Nx.as_type(Host.plain(tensor), {kind, 8})
    Nx.Backend.inspect(bytes, Nx.BinaryBackend.to_binary(bytes, limit), inspect_opts)
  end

  defp shown(tensor, limit, inspect_opts),
    do: Nx.Backend.inspect(tensor, to_binary(tensor, limit), inspect_opts)

  ## Operations
  #
  # One row an operation: how many tensors lead its arguments, and how many other arguments follow.
  # Each becomes a callback whose meaning is Emily.Lower.op/3.

  unary_math = Enum.map(Nx.Shared.unary_math_funs(), &elem(&1, 0))

  unary =
    unary_math ++
      [:abs, :bitwise_not, :ceil, :conjugate, :floor, :negate, :round, :sign] ++
      [:count_leading_zeros, :population_count, :real, :imag, :is_nan, :is_infinity] ++
      [:as_type, :bitcast, :reshape]

  binary =
    [:add, :subtract, :multiply, :pow, :remainder, :divide, :atan2, :min, :max, :quotient] ++
      [:bitwise_and, :bitwise_or, :bitwise_xor, :left_shift, :right_shift] ++
      [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] ++
      [:logical_and, :logical_or, :logical_xor]

  one_and_options =
    [:squeeze, :transpose, :reverse, :all, :any, :sum, :product, :reduce_max, :reduce_min] ++
      [:argmax, :argmin, :sort, :argsort, :fft, :ifft]

  windows = [:window_sum, :window_product, :window_max, :window_min]

  # What Nx 0.11 calls by name is a block later.
  blocks? = Code.ensure_loaded?(Nx) and function_exported?(Nx, :block, 4)

  named =
    if blocks? do
      []
    else
      [logical_not: {1, 0}, phase: {1, 0}, determinant: {1, 0}, cholesky: {1, 0}, solve: {2, 0}] ++
        [take: {2, 1}, take_along_axis: {2, 1}] ++
        for name <-
              [:cumulative_sum, :cumulative_product, :cumulative_min, :cumulative_max] ++
                [:fft2, :ifft2, :lu, :qr, :svd, :eigh, :top_k],
            do: {name, {1, 1}}
    end

  operations =
    for(name <- unary, do: {name, {1, 0}}) ++
      for(name <- binary, do: {name, {2, 0}}) ++
      for(name <- one_and_options, do: {name, {1, 1}}) ++
      for(name <- windows, do: {name, {1, 2}}) ++
      [broadcast: {1, 2}, slice: {1, 3}, put_slice: {1, 2}, concatenate: {0, 2}, stack: {0, 2}] ++
      [pad: {2, 1}, gather: {2, 1}, conv: {2, 1}, triangular_solve: {2, 1}, clip: {3, 0}] ++
      [select: {3, 0}, indexed_add: {3, 1}, indexed_put: {3, 1}] ++
      [window_scatter_max: {3, 2}, window_scatter_min: {3, 2}] ++
      [reduce: {2, 2}, window_reduce: {2, 3}] ++
      [dot: {1, 5}] ++ named

  # Operations with tensors behind the leading ones, or among lists.
  scattered = [:slice, :put_slice, :concatenate, :stack, :dot]

  behaviour = Nx.Backend.behaviour_info(:callbacks)
  for_lower = Keyword.keys(operations)

  case for_lower -- Lower.names() do
    [] -> :ok
    missing -> raise "Emily.Lower does not know #{inspect(missing)}"
  end

  for {name, {tensors, others}} <- operations do
    args = Macro.generate_arguments(tensors + others, __MODULE__)
    {leading, _} = Enum.split(args, tensors)

    if {name, length(args) + 1} in behaviour, do: @impl(true)

    cond do
      name in scattered ->
        def unquote(name)(out, unquote_splicing(args)) do
          mixed(unquote(name), out, unquote(args))
        end

      true ->
        device = Macro.var(:device, __MODULE__)

        owned =
          for arg <- leading, do: quote(do: %T{data: %B{device: unquote(device)}} = unquote(arg))

        {_, rest} = Enum.split(args, tensors)

        def unquote(name)(out, unquote_splicing(owned), unquote_splicing(rest)) do
          args = unquote(args)
          run(unquote(name), out, args, args, unquote(device))
        end

        def unquote(name)(out, unquote_splicing(args)) do
          mixed(unquote(name), out, unquote(args))
        end
    end
  end

  # The kernels of Emily.Fast.
  unless blocks? do
    for {name, tensors} <- Emily.Fast.Node.callbacks() do
      args = Macro.generate_arguments(tensors, __MODULE__)

      def unquote(name)(out, unquote_splicing(args), opts) do
        args = unquote(args)
        device = device_of(args)
        if device == :host, do: Enum.each(args, &Lower.dtype(&1.type))
        kernel = Emily.Fast.Node.kernel(unquote(name), opts)

        case Lower.block(kernel, out, own(args, device)) do
          :default -> composed(device, fn -> Emily.Fast.Node.composed(kernel, args, out) end)
          expr -> operation(kernel, args, expr, out, device)
        end
      end
    end
  end

  if blocks? do
    @impl true
    def block(struct, out, args, fun) do
      device = device_of(args)
      check_block(struct, args)

      if device == :host or Host.held?(out) do
        held(struct, args, out, fn args -> apply(fun, [struct | args]) end)
      else
        block_on(device, struct, out, args, fun)
      end
    end

    defp block_on(device, struct, out, args, fun) do
      case Lower.block(struct, out, own(args, device)) do
        :default ->
          composed(device, fn -> apply(fun, [struct | args]) end)

        expr ->
          operation(struct, args, expr, out, device)
      end
    end
  end

  if blocks? do
    defp check_block(%Nx.Block.Take{axis: axis}, args),
      do: Bounds.check(:take, args ++ [[axis: axis]])

    defp check_block(%Nx.Block.TakeAlongAxis{axis: axis}, args) do
      Bounds.check(:take_along_axis, args ++ [[axis: axis]])
    end

    defp check_block(_struct, _args), do: :ok
  end

  # What every operation goes through, whose own calls would take a part of its time that is seen.
  @compile {:inline, run: 5, run_on: 5, operation: 5, evaluate: 3, execute: 2, tensor: 3}

  # `owned` are `args` as operands for MLX.
  defp run(name, out, args, owned, device) do
    Bounds.check(name, args)

    if device == :host or Host.held?(out) do
      held(name, args, out, fn args -> Host.apply(name, out, args) end)
    else
      run_on(device, name, out, args, owned)
    end
  end

  # Nx has no defaults since 0.12.
  @dialyzer {:no_return, run_on: 5}
  defp run_on(device, name, out, args, owned) do
    case Lower.op(name, out, owned) do
      {:fallback, reason} -> fallback(name, out, args, reason)
      :default -> composed(device, fn -> default(name, out, args) end)
      expr -> operation(name, args, expr, out, device)
    end
  end

  # Some tensors are of another backend or device, or stand in lists.
  defp mixed(name, out, args) do
    case device_of(args) do
      :host -> run(name, out, args, args, :host)
      device -> run(name, out, args, own(args, device), device)
    end
  end

  defp operation(name, args, expr, out, device) do
    if Watch.on?(),
      do: Watch.operation(name, args, fn -> evaluate(expr, out, device) end),
      else: evaluate(expr, out, device)
  end

  defp evaluate(expr, %T{} = out, device) do
    if device != :cpu, do: refuse_f64(out.type, device)
    tensor(out, execute(expr, device), device)
  end

  defp evaluate(expr, out, device) when is_tuple(out) do
    outs = Tuple.to_list(out)
    if device != :cpu, do: Enum.each(outs, &refuse_f64(&1.type, device))

    outs
    |> Enum.zip_with(execute_all(expr, device), &tensor(&1, &2, device))
    |> List.to_tuple()
  end

  defp execute(ref, _device) when is_reference(ref), do: ref

  defp execute(expr, device) do
    [ref] = execute_all(expr, device)
    ref
  end

  defp execute_all(expr, device) do
    Native.run([expr], Emily.Stream.of(device))
  rescue
    error in [Emily.Error, ArgumentError] -> reraise explain(error, expr), __STACKTRACE__
  end

  @doc false
  # What the binding says of arrays and expressions, in Nx's words where it means something to Nx.
  def explain(%Emily.Error{message: "[Inverse::eval_cpu]" <> _}, _expr) do
    ArgumentError.exception("can't solve for singular matrix")
  end

  def explain(%ArgumentError{} = error, expr) do
    case foreign(expr) do
      nil ->
        error

      ref ->
        ArgumentError.exception(
          "Emily.Backend: a tensor is in the memory of the node #{node(ref)}, and cannot be used on " <>
            "#{node()}. Send Nx.backend_copy(tensor, Nx.BinaryBackend) to other nodes; a serving " <>
            "does so by Nx.Serving.distributed_postprocessing/2, its callers by the last argument " <>
            "of Nx.Serving.batched_run/3"
        )
    end
  end

  def explain(error, _expr), do: error

  # A reference to an array means something on its own node only.
  defp foreign(ref) when is_reference(ref), do: if(node(ref) != node(), do: ref)
  defp foreign(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> foreign()
  defp foreign(list) when is_list(list), do: Enum.find_value(list, &foreign/1)
  defp foreign(_other), do: nil

  @doc false
  def refuse_f64({:f, 64}, device) when is_gpu(device) do
    raise ArgumentError,
          "Emily.Backend: MLX has no f64 on a GPU. Cast the tensor to f32 with Nx.as_type/2, or " <>
            "compute with device: :cpu"
  end

  def refuse_f64(_type, _device), do: :ok

  ## Other backends' tensors

  # A GPU wins, the first of several; tensors of other backends follow Emily's. One of a type that MLX lacks takes all to
  # the host.
  defp device_of(args), do: device_of(args, nil) || Native.default_device()

  defp device_of([%T{data: %B{device: :host}} | _], _found), do: :host
  defp device_of([%T{data: %B{device: device}} | rest], nil), do: device_of(rest, device)

  defp device_of([%T{data: %B{device: device}} | rest], found),
    do: device_of(rest, Device.of_both(found, device))

  defp device_of([%T{type: type} | rest], found),
    do: if(Lower.type?(type), do: device_of(rest, found), else: :host)

  defp device_of([list | rest], found) when is_list(list) do
    with device when device != :host <- device_of(list, found), do: device_of(rest, device)
  end

  defp device_of([_ | rest], found), do: device_of(rest, found)
  defp device_of([], found), do: found

  @doc false
  # The array of a tensor of any backend, whose vectorised axes lead.
  def array(%T{data: %B{device: device, ref: ref}}, device), do: ref
  def array(%T{type: type, data: %B{device: :host}}, _device), do: Lower.dtype(type)

  def array(%T{data: %B{}} = tensor, device),
    do: operand(backend_copy(tensor, B, device: device), device)

  def array(%T{} = tensor, device),
    do: tensor |> Nx.devectorize() |> move(device) |> array(device)

  @doc false
  # The array of a tensor, or its number as an expression.
  def operand(%T{data: %B{}} = tensor, device), do: array(tensor, device)
  def operand(%T{} = tensor, device), do: own_tensor(Nx.devectorize(tensor), device).data.ref

  defp own([%T{} = tensor | rest], device), do: [own_tensor(tensor, device) | own(rest, device)]

  defp own([list | rest], device) when is_list(list) do
    [own(list, device) | own(rest, device)]
  end

  defp own([other | rest], device), do: [other | own(rest, device)]
  defp own([], _device), do: []

  defp own_tensor(%T{data: %B{}} = tensor, _device), do: tensor

  # Numbers in the caller's code arrive as scalars of Nx.BinaryBackend: they become part of the
  # expression.
  defp own_tensor(
         %T{data: %Nx.BinaryBackend{}, shape: {}, type: {kind, bits} = type} = tensor,
         device
       )
       when (kind in [:s, :u] and bits >= 8) or (kind == :f and bits >= 32) do
    dtype = Lower.dtype(type)

    case Native.Number.decode(Nx.BinaryBackend.to_binary(tensor, 1), dtype) do
      number when is_number(number) ->
        tensor(tensor, Emily.Expr.scalar(number, dtype), device)

      _not_finite ->
        move(tensor, device)
    end
  end

  defp own_tensor(tensor, device), do: move(tensor, device)

  defp move(%T{} = tensor, device), do: from_binary(tensor, Nx.to_binary(tensor), device: device)

  ## What MLX cannot do

  defp fallback(name, out, args, reason) do
    device = device_of(args)

    elsewhere(name, args, fn ->
      name
      |> Fallback.run(args, reason, fn args -> apply(Nx.BinaryBackend, name, [out | args]) end)
      |> return(out, device)
    end)
  end

  # An operation on, or with a result of, what the host holds.
  defp held(name, args, out, fun) do
    elsewhere(name, args, fn ->
      name |> Host.run(args, out, fun) |> return(out, Host.device(args))
    end)
  end

  defp elsewhere(name, args, run),
    do: if(Watch.on?(), do: Watch.operation(name, args, run), else: run.())

  defp return(%T{} = result, out, device) do
    if Host.held?(out),
      do: Host.hold(out, result, device),
      else: array_of(out, Nx.to_binary(result), device)
  end

  defp return(results, outs, device) do
    [Tuple.to_list(results), Tuple.to_list(outs)]
    |> Enum.zip_with(fn [result, out] -> return(result, out, device) end)
    |> List.to_tuple()
  end

  # The tensors that Nx makes on its way must be Emily's too, or some of its operations would meet
  # tensors of two backends.
  defp composed(device, fun), do: Nx.with_default_backend({__MODULE__, device: device}, fun)

  # What Nx 0.11 would have run had the callback not been there.
  if blocks? do
    defp default(name, _out, _args), do: raise("#{name} has no default")
  else
    defp default(:phase, _out, [tensor]), do: Nx.atan2(Nx.imag(tensor), Nx.real(tensor))
    defp default(:cholesky, _out, [tensor]), do: Nx.LinAlg.Cholesky.cholesky(tensor)
    defp default(:qr, _out, [tensor, opts]), do: Nx.LinAlg.QR.qr(tensor, opts)
    defp default(:svd, _out, [tensor, opts]), do: Nx.LinAlg.SVD.svd(tensor, opts)
    defp default(:eigh, _out, [tensor, opts]), do: Nx.LinAlg.BlockEigh.eigh(tensor, opts)
    defp default(:lu, _out, [tensor, opts]), do: Nx.LinAlg.LU.lu(tensor, opts)

    # A permutation's determinant is its sign; the lower factor has ones on its diagonal.
    defp default(:determinant, _out, [tensor]) do
      {p, _l, u} = Nx.LinAlg.lu(tensor)
      pivots = u |> Nx.take_diagonal() |> Nx.product(axes: [-1])
      Nx.multiply(Nx.LinAlg.determinant(Nx.real(p)), pivots)
    end
  end
end
