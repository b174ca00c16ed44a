defmodule Emily.Compiler do
  @moduledoc """
  A compiler for `defn` that runs on `Emily.Backend`.

      Nx.Defn.jit(&Nx.add/2, compiler: Emily.Compiler).(1, 2)

  It evaluates the traced expression operation by operation, with `Emily.Backend` as the default
  backend, so that constants and results live there too. Arguments on other backends are moved once
  a call.

  ## Options

    * `:device` - `:cpu` or `:gpu`. Without it, the device of the default backend if that is
      `Emily.Backend`, and else MLX's default device. A device that is not there is refused with an
      `ArgumentError`
    * those of `Nx.Defn.Evaluator`: `:hooks`, `:garbage_collect`, `:max_concurrency`

  ## Example

      iex> add = Nx.Defn.jit(&Nx.add/2, compiler: Emily.Compiler)
      iex> sum = add.(Nx.tensor([1, 2]), Nx.tensor([3, 4]))
      iex> Nx.to_flat_list(sum)
      [4, 6]
      iex> sum.data.__struct__
      Emily.Backend
  """

  @behaviour Nx.Defn.Compiler

  alias Nx.Defn.Evaluator

  @impl true
  def __partitions_options__(opts) do
    List.duplicate(opts, Keyword.get(opts, :max_concurrency, 1))
  end

  @impl true
  def __to_backend__(opts) do
    case {Keyword.fetch(opts, :device), Nx.default_backend()} do
      {{:ok, device}, _} -> {Emily.Backend, Emily.Backend.init(device: device)}
      {:error, {Emily.Backend, backend_opts}} -> {Emily.Backend, Emily.Backend.init(backend_opts)}
      {:error, _} -> {Emily.Backend, Emily.Backend.init([])}
    end
  end

  @impl true
  def __jit__(key, vars, fun, args_list, opts) do
    __compile__(key, vars, fun, opts).(args_list)
  end

  @impl true
  def __compile__(key, vars, fun, opts) do
    backend = __to_backend__(opts)
    run = Evaluator.__compile__(key, vars, fun, Keyword.delete(opts, :device))

    fn args_list ->
      args_list = Enum.map(args_list, fn args -> Enum.map(args, &moved(&1, backend)) end)
      Nx.with_default_backend(backend, fn -> run.(args_list) end)
    end
  end

  defp moved(argument, {module, opts}) do
    fn ->
      tensor = argument.()
      device = opts[:device]

      case tensor do
        %Nx.Tensor{data: %Emily.Backend{device: ^device}} -> tensor
        _ -> Nx.backend_copy(tensor, {module, opts})
      end
    end
  end
end
