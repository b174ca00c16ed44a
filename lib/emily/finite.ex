defmodule Emily.Finite do
  @moduledoc """
  Where a NaN or an infinity comes from.

      config :emily, check_finite: true

  makes the first operation that gives one raise an `ArithmeticError`, which names the operation, the shapes and the types of its
  operands, and the place in the caller's code where the stack shows it. The option `check_finite: true` of `Emily.Compiler`
  does so for one function. It is for finding an error: each operation is computed and read before the next, and compiled functions
  are evaluated operation by operation.

      iex> x = Nx.tensor([1.0, 0.0], backend: Emily.Backend)
      iex> fun = fn x -> Nx.multiply(2, Nx.log(x)) end
      iex> error =
      ...>   try do
      ...>     Nx.Defn.jit_apply(fun, [x], compiler: Emily.Compiler, check_finite: true)
      ...>   rescue
      ...>     error in ArithmeticError -> error
      ...>   end
      iex> error.message =~ "log of {2} f32 gave 0 NaN and 1 infinities among 2 numbers"
      true

  An infinity may pass through an operation: one that has an infinity among its operands, such as a mask's, is not
  taken for its origin. A NaN never passes. Numbers that a tensor is made of are not looked at, nor what `Nx.BinaryBackend` computes.

  The configuration is looked at whenever a tensor is made of numbers, and when a compiled function is called. What
  `Nx.Defn.compile/3` has compiled before stays as it is.
  """

  alias Emily.{Backend, Fallback, Host, Native, Tree}
  alias Emily.Native.Scoped
  alias Nx.Tensor, as: T

  @doc "Whether the operations of the calling process are checked."
  @spec on?() :: boolean
  def on? do
    case :erlang.get(__MODULE__) do
      :undefined -> :persistent_term.get(__MODULE__, false)
      what -> what != false
    end
  end

  @doc false
  # Looks at the configuration, which is too slow for each operation.
  def configured? do
    configured? = Application.get_env(:emily, :check_finite, false)

    if not is_boolean(configured?) do
      raise ArgumentError,
            "config :emily, check_finite: must be true or false, got: #{inspect(configured?)}"
    end

    if configured? != :persistent_term.get(__MODULE__, false),
      do: :persistent_term.put(__MODULE__, configured?)

    configured?
  end

  @doc false
  # Runs `fun` with the operations of the calling process checked, or not. `what` is what computes, in words, or false.
  def checked(what, fun), do: Scoped.set(__MODULE__, what, fun)

  @doc false
  # Raises where an operation has given what is not finite.
  def check(name, args, result) do
    for %T{} = tensor <- Tree.tensors(result),
        looked_at?(tensor),
        count(tensor, :isfinite) < size(tensor) do
      nans = count(tensor, :isnan)

      if nans > 0 or not Enum.any?(Tree.tensors(args), &infinite?/1) do
        raise ArithmeticError,
              "Emily: #{Fallback.described(name, args)} gave #{nans} NaN and #{count(tensor, :isinf)} infinities " <>
                "among #{size(tensor)} numbers, which check_finite: true forbids#{place()}"
      end
    end

    :ok
  end

  defp looked_at?(%T{type: type, data: %Backend{device: device}}),
    do: Nx.Type.float?(type) and device != :host

  defp looked_at?(_tensor), do: false

  defp infinite?(%T{data: %Backend{device: :host}} = tensor),
    do: tensor |> Host.plain() |> infinite?()

  defp infinite?(%T{type: type} = tensor) do
    cond do
      looked_at?(tensor) -> count(tensor, :isinf) > 0
      Nx.Type.float?(type) -> tensor |> Nx.is_infinity() |> Nx.any() |> Nx.to_number() == 1
      true -> false
    end
  end

  defp size(tensor), do: tensor |> Nx.devectorize() |> Nx.size()

  # How many numbers are so.
  defp count(%T{data: %Backend{ref: array, device: device}}, predicate) do
    axes = Enum.to_list(0..(tuple_size(Native.shape(array)) - 1)//1)
    [sum] = Native.run([{:sum, {:astype, {predicate, array}, :s64}, axes, false}], device)
    Native.item(sum)
  end

  # Where the caller's code is, if the stack still shows it, and the compiled function.
  defp place do
    {:current_stacktrace, stack} = Process.info(self(), :current_stacktrace)

    at =
      case Enum.find(stack, &callers?/1) do
        {_module, _function, _arity, [_ | _] = location} ->
          ", at #{location[:file]}:#{location[:line]}"

        _ ->
          ""
      end

    if what = Process.get(__MODULE__), do: "#{at}, in #{what}", else: at
  end

  @libraries [:nx, :emily, :elixir, :stdlib, :kernel, :telemetry]

  defp callers?({module, _function, _arity, _location}) do
    case :application.get_application(module) do
      {:ok, application} -> application not in @libraries
      :undefined -> true
    end
  end
end
