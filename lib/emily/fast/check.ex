defmodule Emily.Fast.Check do
  @moduledoc false
  # Validation of what Emily.Fast is given. Each check raises an ArgumentError that names the
  # function, the argument, and what was got.

  @doc "The options with their defaults; `:required` marks one that must be given."
  def options!(fun, opts, defaults) do
    unless Keyword.keyword?(opts) do
      fail!(fun, "expects its options as a keyword list, got: #{inspect(opts)}")
    end

    known = Keyword.keys(defaults)

    case Keyword.keys(opts) -- known do
      [] ->
        :ok

      [key | _] ->
        if key in known,
          do: fail!(fun, "got option #{inspect(key)} more than once"),
          else: fail!(fun, "has no option #{inspect(key)}, it takes #{inspect(known)}")
    end

    for {key, default} <- defaults do
      case Keyword.get(opts, key, default) do
        :required -> fail!(fun, "needs the option #{inspect(key)}")
        value -> {key, value}
      end
    end
  end

  def number!(fun, opts, key) do
    case opts[key] do
      number when is_number(number) -> number
      other -> option!(fun, key, "a number", other)
    end
  end

  def non_negative!(fun, opts, key) do
    case opts[key] do
      number when is_number(number) and number >= 0 -> number
      other -> option!(fun, key, "a number that is not negative", other)
    end
  end

  def positive!(fun, opts, key) do
    case opts[key] do
      number when is_number(number) and number > 0 -> number
      other -> option!(fun, key, "a positive number", other)
    end
  end

  def boolean!(fun, opts, key) do
    case opts[key] do
      boolean when is_boolean(boolean) -> boolean
      other -> option!(fun, key, "true or false", other)
    end
  end

  @spec option!(String.t(), atom(), String.t(), term()) :: no_return()
  def option!(fun, key, expected, %Nx.Tensor{} = got) do
    fail!(fun, "expects #{inspect(key)} to be #{expected}, got a tensor of #{describe(got)}")
  end

  def option!(fun, key, expected, got) do
    fail!(fun, "expects #{inspect(key)} to be #{expected}, got: #{inspect(got)}")
  end

  @doc "The argument as a tensor."
  def tensor!(_fun, _name, %Nx.Tensor{} = tensor), do: tensor
  def tensor!(_fun, _name, number) when is_number(number), do: Nx.tensor(number)

  def tensor!(fun, name, other),
    do: fail!(fun, "expects #{name} to be a tensor, got: #{inspect(other)}")

  def float!(fun, name, %{type: type} = tensor) do
    unless type in [{:f, 32}, {:f, 16}, {:bf, 16}, {:f, 64}] do
      fail!(fun, "expects #{name} of type f32, f16, bf16 or f64, got #{describe(tensor)}")
    end
  end

  def integer!(fun, name, %{type: {kind, _}} = tensor) do
    unless kind in [:s, :u] do
      fail!(fun, "expects #{name} of an integer type, got #{describe(tensor)}")
    end
  end

  def real!(fun, name, %{type: {kind, _}} = tensor) do
    unless kind in [:s, :u, :f, :bf] do
      fail!(fun, "expects #{name} of a float or integer type, got #{describe(tensor)}")
    end
  end

  def shape!(fun, name, tensor, shape, why) do
    unless tensor.shape == shape do
      fail!(fun, "expects #{name} of shape #{inspect(shape)} (#{why}), got #{describe(tensor)}")
    end
  end

  def rank!(fun, name, tensor, rank, what) do
    unless tuple_size(tensor.shape) == rank do
      fail!(fun, "expects #{name} of rank #{rank} (#{what}), got #{describe(tensor)}")
    end
  end

  def min_rank!(fun, name, tensor, rank) do
    unless tuple_size(tensor.shape) >= rank do
      fail!(fun, "expects #{name} of rank #{rank} or more, got #{describe(tensor)}")
    end
  end

  def broadcasts!(fun, name, tensor, shape, what) do
    unless broadcasts?(tensor.shape, shape) do
      fail!(
        fun,
        "expects #{name} to broadcast to #{inspect(shape)} (#{what}), got #{describe(tensor)}"
      )
    end
  end

  defp broadcasts?(from, to) do
    missing = tuple_size(to) - tuple_size(from)

    missing >= 0 and
      from
      |> Tuple.to_list()
      |> Enum.zip(to |> Tuple.to_list() |> Enum.drop(missing))
      |> Enum.all?(fn {a, b} -> a == 1 or a == b end)
  end

  def not_vectorized!(fun, named_tensors) do
    for {name, %{vectorized_axes: [_ | _]} = tensor} <- named_tensors do
      fail!(
        fun,
        "does not take a vectorized #{name} (use Nx.devectorize/2), got #{describe(tensor)}"
      )
    end
  end

  @doc "Shape and type in words."
  def describe(%Nx.Tensor{} = tensor) do
    vectors = if tensor.vectorized_axes == [], do: "", else: " #{inspect(tensor.vectorized_axes)}"
    "shape #{inspect(tensor.shape)} and type #{Nx.Type.to_string(tensor.type)}#{vectors}"
  end

  @spec fail!(String.t(), String.t()) :: no_return
  def fail!(fun, message), do: raise(ArgumentError, "Emily.Fast.#{fun} #{message}")
end
