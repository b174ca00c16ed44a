defmodule Emily.Lower.Reduce.Fold do
  @moduledoc false
  # Reductions by a function of the caller's, which run in MLX where the function is one associative
  # operation of its two arguments.
  #
  # The function is Elixir's, in an eager call, or the node `:fun` of an expression of Nx.Defn.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2]
  alias Emily.Lower.{Effects, Reduce.Probe, Shape, Window.Sliding}
  alias Nx.Tensor, as: T

  # Nx's operation, MLX's reduction by it, and its step of two.
  @operations [
    add: {:sum, :add},
    multiply: {:prod, :multiply},
    max: {:max, :maximum},
    min: {:min, :minimum},
    bitwise_and: {:bitwise_and, :bitwise_and},
    bitwise_or: {:bitwise_or, :bitwise_or},
    bitwise_xor: {:bitwise_xor, :bitwise_xor},
    logical_and: {:all, :logical_and},
    logical_or: {:any, :logical_or}
  ]

  @names Keyword.keys(@operations)

  def names, do: [:reduce, :window_reduce]

  @doc "The operations of Nx that a function may be."
  def operations, do: @operations

  def lower(:reduce, %{type: type, shape: shape}, [tensor, acc, opts, fun]) do
    fold(fun, type, tensor, acc, fn op, x, _start ->
      axes = opts[:axes] || Enum.to_list(0..(tuple_size(tensor.shape) - 1)//1)
      Shape.reshape(reduce(op, x, Tuple.to_list(tensor.shape), axes), shape)
    end)
  end

  # As in Nx the initial value is the padding too, and counts each time.
  def lower(:window_reduce, %{type: type}, [tensor, acc, window, opts, fun]) do
    fold(fun, type, tensor, acc, fn op, x, start ->
      dims = Tuple.to_list(tensor.shape)
      config = Enum.map(opts[:padding], fn {low, high} -> {low, high, 0} end)
      padded = Shape.padded(dims, config)
      x = Shape.pad(x, dims, config, start)
      Sliding.windows(op, x, padded, Tuple.to_list(window), opts)
    end)
  end

  defp fold(fun, type, tensor, acc, windows) do
    with true <- fits?(tensor.type, type) and fits?(acc.type, type),
         {:ok, name} <- operation(fun, type) do
      {op, step} = @operations[name]
      wide = wide(op, type)
      operand = if wide == :bool, do: &truthy(value(&1), &1.type), else: &cast(&1, wide)

      share(operand.(acc), fn start ->
        {:astype, {step, windows.(op, in_order(operand.(tensor), wide), start), start},
         dtype(type)}
      end)
    else
      _ -> {:fallback, "the caller's function is none that MLX has"}
    end
  end

  # Where a cast would change the numbers, the order of cast and function counts.
  defp fits?(type, out) when is_integer_type(type) and is_integer_type(out), do: true
  defp fits?(type, out), do: Nx.Type.merge(type, out) == out

  defp wide(op, _type) when op in [:all, :any], do: :bool
  defp wide(op, type) when op in [:sum, :prod], do: accumulator(type)
  defp wide(_op, type), do: type

  defp reduce(_op, x, _dims, []), do: x

  # MLX has no reduction by bits: the halves of an axis are combined until one element is left.
  defp reduce(op, x, dims, axes) when op in [:bitwise_and, :bitwise_or, :bitwise_xor] do
    kept = Enum.to_list(0..(length(dims) - 1)) -- axes
    others = kept |> Enum.map(&Enum.at(dims, &1)) |> Enum.product()
    count = div(Enum.product(dims), others)
    halve(op, {:reshape, {:transpose, x, axes ++ kept}, [count, others]}, count, others)
  end

  defp reduce(op, x, _dims, axes), do: {op, x, axes, false}

  defp halve(_op, x, 1, _others), do: x

  defp halve(op, x, count, others) do
    half = div(count, 2)
    rows = fn x, start, stop -> {:slice, x, [start, 0], [stop, others], [1, 1]} end

    share(x, fn x ->
      halved = halve(op, {op, rows.(x, 0, half), rows.(x, half, 2 * half)}, half, others)
      if 2 * half == count, do: halved, else: {op, halved, rows.(x, 2 * half, count)}
    end)
  end

  @doc """
  The operation that a function of two numbers of `type` is, as `{:ok, name}`, or `:error`.

  To find out, an Elixir function is called once, with tensors of `Emily.Lower.Reduce.Probe`. One that
  needs numbers, or raises, is no known operation; nor is one with hooks.
  """
  def operation(%T{data: %{op: :fun, args: [_params, %T{} = body, _mfa]}}, type) do
    known(body, type)
  end

  def operation(fun, type) when is_function(fun, 2),
    do: if(Effects.of_evaluator?(fun), do: :error, else: probed(fun, type))

  def operation(_node, _type), do: :error

  defp probed(fun, type) do
    case fun.(Probe.parameter(0, type), Probe.parameter(1, type)) do
      %T{} = body -> known(body, type)
      _ -> :error
    end
  catch
    _kind, _reason -> :error
  end

  # The data of a tensor are an expression of Nx.Defn, or of the probe, which has the same keys.
  defp known(%T{shape: {}} = body, type) do
    case uncast(body, type) do
      %T{data: %{op: name, args: [x, y]}} when name in @names ->
        if Enum.sort([parameter(x, type), parameter(y, type)]) == [0, 1],
          do: {:ok, name},
          else: :error

      _ ->
        :error
    end
  end

  defp known(_body, _type), do: :error

  defp parameter(expr, type) do
    case uncast(expr, type) do
      %T{data: %{op: :parameter, args: [index]}} -> index
      _ -> nil
    end
  end

  # Casts to types that hold every number of `type`, and back.
  defp uncast(%T{data: %{op: :metadata, args: [expr, _]}}, type), do: uncast(expr, type)

  defp uncast(%T{type: to, data: %{op: :as_type, args: [expr]}} = whole, type) do
    if holds?(to, type) and holds?(expr.type, type), do: uncast(expr, type), else: whole
  end

  defp uncast(expr, _type), do: expr

  defp holds?(to, type) do
    Nx.Type.merge(to, type) == to and Nx.Type.integer?(to) == Nx.Type.integer?(type)
  end
end
