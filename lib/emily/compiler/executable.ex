defmodule Emily.Compiler.Executable do
  @moduledoc false
  # A compiled function: its program, and what its arguments and results are to Nx.

  alias Emily.{Backend, Fallback, Finite, Host, Lower, Native, Profile}
  alias Emily.Compiler.{Builder, Calls}
  alias Emily.Native.Program
  alias Nx.Defn.{Composite, Evaluator}
  alias Nx.Tensor, as: T

  @enforce_keys [:program, :output, :device]
  defstruct [:program, :output, :device, :expr, :mode, :checked, inputs: [], calls: {}, bytes: 0]

  @doc "Compiles a composite of expressions; `name` is the function, for telemetry."
  def compile(name, expr, options) do
    metadata = %{function: name, device: options.device}

    :telemetry.span([:emily, :compile], metadata, fn ->
      executable = build(expr, options)
      executable = %{executable | checked: options.check_finite && inspect(name)}
      operations = if program = executable.program, do: program.operations, else: 0
      counts = %{operations: operations, calls: tuple_size(executable.calls)}
      {executable, counts, metadata}
    end)
  end

  defp build(expr, %{native: false, fallback: fallback, device: device}) do
    mode = if fallback in [:raise, :warn], do: fallback
    %{evaluated(expr, device) | mode: mode}
  end

  defp build(expr, options) do
    built =
      expr
      |> Composite.traverse(&Nx.devectorize/1)
      |> Builder.build(
        device: options.device,
        hooks: Map.keys(options.hooks),
        fallback: options.fallback
      )

    case built do
      {:held, node} ->
        if options.fallback == :raise, do: refuse(node)
        if options.fallback == :warn, do: warn(node)
        evaluated(expr, options.device)

      %{function: function, inputs: inputs, calls: calls, bytes: bytes} ->
        output = Nx.to_template(expr)

        %__MODULE__{
          program: Program.compile(function, fuse: options.fuse, results: declared(output)),
          inputs: inputs,
          output: output,
          calls: List.to_tuple(calls),
          device: options.device,
          bytes: bytes
        }
    end
  end

  # What has no program.
  defp evaluated(expr, device),
    do: %__MODULE__{program: nil, expr: expr, output: Nx.to_template(expr), device: device}

  # What Nx takes the results for. It says the wrong type of some, and nobody could read them.
  defp declared(output) do
    for %T{type: type} = leaf <- Composite.flatten_list([output]) do
      {Lower.dtype(type), leaf |> Nx.devectorize() |> Nx.shape() |> Tuple.to_list()}
    end
  end

  @doc "What may be kept: an expression shares its parts, and a copy would not."
  def kept(executable), do: %{executable | expr: nil}

  @doc "The executable with its expression, where it has no program; `trace` gives it."
  def traced(%__MODULE__{program: nil, expr: nil} = executable, trace),
    do: %{executable | expr: trace.()}

  def traced(executable, _trace), do: executable

  @doc "The memory of the constants that the program holds."
  def bytes(%__MODULE__{bytes: bytes}), do: bytes

  @spec refuse(%T{}) :: no_return()
  defp refuse(%T{data: %Nx.Defn.Expr{op: op}} = node),
    do: Fallback.refuse(op, seen(node), Host.reason([node]))

  defp warn(%T{data: %Nx.Defn.Expr{op: op}} = node),
    do: Fallback.warn(op, seen(node), Host.reason([node]), "the function is evaluated as a whole")

  defp seen(%T{data: %Nx.Defn.Expr{args: args}} = node) do
    operands = for %T{} = operand <- args, do: Nx.to_template(operand)
    if operands == [], do: [Nx.to_template(node)], else: operands
  end

  @doc """
  Runs the function on arguments, which are functions that give tensors. Those of the numbers in `donated`, and those that
  Nx marks, are given away.
  """
  def run(%__MODULE__{program: nil} = executable, args, donated, _stream, hooks) do
    %{device: device, expr: expr} = executable
    backend = {Backend, device: device}
    args = for arg <- args, do: owned(arg.(), backend)
    given = for {arg, at} <- Enum.with_index(args), donated?(arg, at, donated), do: arg
    args = for arg <- args, do: fn -> arg end

    # Operation by operation, each of which Emily.Backend runs in MLX or counts as one that left it.
    watched(executable, fn ->
      Nx.with_default_backend(backend, fn ->
        [result] = Evaluator.__compile__(nil, [], fn [] -> expr end, hooks: hooks).([args])

        result
        |> Composite.traverse(&(&1 |> owned(backend) |> Backend.settled() |> Calls.kept()))
        |> without(given)
      end)
    end)
  end

  def run(%__MODULE__{device: device} = executable, args, donated, stream, hooks) do
    tensors = tensors(executable.inputs, 0, args)
    arrays = for tensor <- tensors, do: array(tensor, device)
    given = given(tensors, executable.inputs, donated, 0)

    call = fn index, arrays -> elem(executable.calls, index).(arrays, device, hooks) end

    try do
      program(executable.program, arrays, given, stream, call)
    rescue
      error in [Emily.Error, ArgumentError] ->
        reraise Backend.explain(error, arrays), __STACKTRACE__
    else
      results -> Calls.fill(executable.output, results, device)
    end
  end

  # The positions of what is donated, by one walk, without the protocol that `in` asks of a variable: each call takes it.
  defp given([tensor | tensors], [number | inputs], donated, at) do
    given = given(tensors, inputs, donated, at + 1)
    if donated?(tensor, number, donated), do: [at | given], else: given
  end

  defp given([], [], _donated, _at), do: []

  defp donated?(%{donatable?: true}, _number, _donated), do: true
  defp donated?(_tensor, number, donated), do: :lists.member(number, donated)

  # The result, when the arguments that were donated are gone but for what is returned.
  defp without(result, given) do
    returned = for %T{data: %Backend{ref: ref}} <- Composite.flatten_list([result]), do: ref

    for %T{data: %Backend{ref: ref, device: device}} <- given,
        device != :host and ref not in returned,
        do: Native.give_away(ref)

    result
  end

  defp program(program, arrays, given, stream, call) do
    if Profile.on?() do
      run = fn -> Program.run(program, arrays, stream, call, given) end
      Profile.measured("program", arrays, run, & &1)
    else
      Program.run(program, arrays, stream, call, given)
    end
  end

  defp watched(%__MODULE__{mode: mode, checked: checked}, fun) do
    fun = if mode, do: fn -> Fallback.with_mode(mode, fun) end, else: fun
    Finite.checked(checked, fun)
  end

  defp owned(%T{data: %Backend{}} = tensor, _backend), do: tensor
  defp owned(%T{} = tensor, backend), do: Nx.backend_copy(tensor, backend)

  # Arguments that the program does not read are not loaded.
  defp tensors([at | inputs], at, [arg | args]), do: [arg.() | tensors(inputs, at + 1, args)]
  defp tensors([_ | _] = inputs, at, [_ | args]), do: tensors(inputs, at + 1, args)
  defp tensors([], _at, _args), do: []

  defp array(%T{data: %Nx.Defn.Expr{}} = tensor, _device) do
    raise ArgumentError,
          "cannot pass a tensor expression as argument to defn, got: #{inspect(tensor)}"
  end

  defp array(%T{} = tensor, device), do: Backend.array(tensor, device)
end
