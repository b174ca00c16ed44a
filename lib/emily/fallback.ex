defmodule Emily.Fallback do
  @moduledoc """
  The one way by which an operation leaves MLX.

  What MLX cannot do, and what is done with a type that it lacks, is computed by `Nx.BinaryBackend`,
  counted (`count/0`), and reported through telemetry (see `Emily.Telemetry`). The config says what else happens:

      config :emily, fallback: :silent

    * `:silent` - nothing else; the default
    * `:warn` - a warning is logged
    * `:raise` - `RuntimeError` is raised instead of computing

  `with_mode/2` chooses for one process, as tests do.
  """

  require Logger
  alias Emily.Native.Scoped
  alias Nx.BinaryBackend
  alias Nx.Tensor, as: T

  @modes [:silent, :warn, :raise]
  @counter {__MODULE__, :count}
  @on_load :new_counter

  @doc false
  def new_counter do
    :persistent_term.put(@counter, :counters.new(1, [:write_concurrency]))
  end

  @doc """
  How many operations have left MLX since the VM started.

      iex> before = Emily.Fallback.count()
      iex> t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
      iex> _ = Nx.reduce(t, 0, fn x, y -> Nx.subtract(x, y) end)
      iex> Emily.Fallback.count() > before
      true
  """
  @spec count() :: non_neg_integer
  def count, do: :counters.get(:persistent_term.get(@counter), 1)

  @doc """
  Runs `fun` with `mode` in force for the calling process.

      iex> t = Nx.tensor([1, 2, 3], backend: Emily.Backend)
      iex> Emily.Fallback.with_mode(:raise, fn ->
      ...>   Nx.reduce(t, 0, fn x, y -> Nx.subtract(x, y) end)
      ...> end)
      ** (RuntimeError) Emily: reduce of {3} s32, {} s32 is not done in MLX: the caller's function is none that MLX has; it would fall back to Nx.BinaryBackend, which fallback: :raise forbids
  """
  @spec with_mode(:silent | :warn | :raise, (-> result)) :: result when result: term
  def with_mode(mode, fun) when mode in @modes and is_function(fun, 0),
    do: Scoped.set(__MODULE__, mode, fun)

  @doc "The mode in force for the calling process."
  @spec mode() :: :silent | :warn | :raise
  def mode do
    case Process.get(__MODULE__) || Application.get_env(:emily, :fallback, :silent) do
      mode when mode in @modes ->
        mode

      other ->
        raise ArgumentError,
              "config :emily, fallback: must be one of #{inspect(@modes)}, got: #{inspect(other)}"
    end
  end

  @doc false
  # Runs `fun` on `args` with every tensor in them on Nx.BinaryBackend, which is the default
  # backend meanwhile. `fun` answers tensors of that backend. `seen` are the tensors that are reported.
  def run(op, args, reason, fun, seen \\ nil) do
    seen = seen || args
    tensors = tensors(seen)

    metadata = %{
      op: op,
      shapes: Enum.map(tensors, & &1.shape),
      types: Enum.map(tensors, & &1.type),
      reason: reason,
      fallback_reason: reason
    }

    case mode() do
      :silent -> :ok
      :warn -> warn(op, seen, reason, "it falls back to Nx.BinaryBackend")
      :raise -> refuse(op, seen, reason)
    end

    :counters.add(:persistent_term.get(@counter), 1, 1)

    :telemetry.span([:emily, :fallback], metadata, fn ->
      result = Nx.with_default_backend(BinaryBackend, fn -> fun.(to_binary_backend(args)) end)
      {result, metadata}
    end)
  end

  @doc false
  def warn(op, args, reason, consequence),
    do: Logger.warning("#{message(op, args, reason)}; #{consequence}")

  @doc false
  def refuse(op, args, reason) do
    raise message(op, args, reason) <>
            "; it would fall back to Nx.BinaryBackend, which fallback: :raise forbids"
  end

  defp message(op, args, reason),
    do: "Emily: #{described(op, args)} is not done in MLX: #{reason}"

  @doc false
  # An operation and its operands, in words.
  def described(op, args) do
    operands =
      for tensor <- tensors(args),
          do: "#{inspect(tensor.shape)} #{Nx.Type.to_string(tensor.type)}"

    "#{name(op)} of #{Enum.join(operands, ", ")}"
  end

  defp name(op) when is_atom(op), do: op
  defp name(%block{}), do: block |> Module.split() |> List.last() |> Macro.underscore()

  defp tensors(args) do
    Enum.flat_map(args, fn
      %T{data: %Nx.Defn.Expr{}} -> []
      %T{} = tensor -> [tensor]
      [_ | _] = list -> Enum.filter(list, &is_struct(&1, T))
      _ -> []
    end)
  end

  @doc false
  def to_binary_backend(%T{data: %BinaryBackend{}} = tensor), do: tensor

  def to_binary_backend(%T{} = tensor) do
    BinaryBackend.from_binary(tensor, Nx.to_binary(tensor), [])
  end

  def to_binary_backend(list) when is_list(list), do: Enum.map(list, &to_binary_backend/1)

  # A tensor that the caller's function closed over may bring it back to MLX.
  def to_binary_backend(fun) when is_function(fun, 2) do
    fn x, y ->
      case fun.(x, y) do
        %T{} = tensor -> to_binary_backend(tensor)
        other -> other
      end
    end
  end

  def to_binary_backend(other), do: other
end
