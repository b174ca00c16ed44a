defmodule Emily.Compiler.Executable do
  @moduledoc false
  # A compiled function: its program, and what its arguments and results are to Nx.

  alias Emily.Backend
  alias Emily.Compiler.{Builder, Calls}
  alias Emily.Native.Program
  alias Nx.Defn.Composite
  alias Nx.Tensor, as: T

  @enforce_keys [:program, :inputs, :output, :calls, :device]
  defstruct [:program, :inputs, :output, :calls, :device]

  @doc "Compiles a composite of expressions; `name` is the function, for telemetry."
  def compile(name, expr, options) do
    metadata = %{function: name, device: options.device}

    :telemetry.span([:emily, :compile], metadata, fn ->
      executable = build(expr, options)
      program = executable.program
      counts = %{operations: program.operations, calls: tuple_size(executable.calls)}
      {executable, counts, metadata}
    end)
  end

  defp build(expr, options) do
    {function, inputs, calls} =
      expr
      |> Composite.traverse(&Nx.devectorize/1)
      |> Builder.build(
        device: options.device,
        hooks: Map.keys(options.hooks),
        fallback: options.fallback
      )

    %__MODULE__{
      program: Program.compile(function, fuse: options.fuse),
      inputs: inputs,
      output: Nx.to_template(expr),
      calls: List.to_tuple(calls),
      device: options.device
    }
  end

  @doc "Runs the function on arguments, which are functions that give tensors."
  def run(%__MODULE__{device: device} = executable, args, stream, hooks) do
    arrays = arrays(executable.inputs, 0, args, device)

    call = fn index, arrays -> elem(executable.calls, index).(arrays, device, hooks) end

    try do
      Program.run(executable.program, arrays, stream, call)
    rescue
      error in [Emily.Error, ArgumentError] ->
        reraise Backend.explain(error, arrays), __STACKTRACE__
    else
      results -> Calls.fill(executable.output, results, device)
    end
  end

  # Arguments that the program does not read are not loaded.
  defp arrays([at | inputs], at, [arg | args], device),
    do: [array(arg.(), device) | arrays(inputs, at + 1, args, device)]

  defp arrays([_ | _] = inputs, at, [_ | args], device), do: arrays(inputs, at + 1, args, device)
  defp arrays([], _at, _args, _device), do: []

  defp array(%T{data: %Nx.Defn.Expr{}} = tensor, _device) do
    raise ArgumentError,
          "cannot pass a tensor expression as argument to defn, got: #{inspect(tensor)}"
  end

  defp array(%T{} = tensor, device), do: Backend.array(tensor, device)
end
