defmodule Attack.Calls do
  @moduledoc false
  # Calls with anything: of the binding's functions, of each operation by its name, and of Nx's functions. Only ArgumentError
  # and Emily.Error come out, or of Nx's functions what comes out of them with Nx.BinaryBackend.

  @behaviour Attack.Cases

  import Attack.Draw
  alias Attack.Calls.{Functions, Operations, Pool, Terms}
  alias Attack.Calls.Nx, as: Calls
  alias Emily.Native

  # A result of more bytes is only computed where no memory holds it.
  @readable 10_000_000
  @beyond 2 ** 36

  # Nx asks the backend for one type, which Emily gives, and composes a result of another.
  @two_types [{Nx, :irfft}, {Nx.LinAlg, :eigh}, {Nx.LinAlg, :solve}]

  @impl true
  def prepare(seed, _folder) do
    Nx.default_backend(Emily.Backend)
    Attack.Cases.seed(seed, 0)
    Terms.prepare()
    %{seed: seed, pool: Pool.prepare(), settings: Functions.settings()}
  end

  @impl true
  def describe(state, number), do: state |> draw(number) |> shown()

  @impl true
  def run(state, number) do
    case draw(state, number) do
      {:operation, {expression, huge?}} -> operation(expression, huge?)
      {:function, {module, name, arguments}} -> function(state, module, name, arguments)
      {:nx, call} -> nx(call)
    end
  end

  defp draw(%{seed: seed, pool: pool}, number) do
    Attack.Cases.seed(seed, number)

    case integer(1, 10) do
      n when n <= 4 -> {:operation, Operations.draw(pool)}
      n when n <= 7 -> {:function, Functions.draw(pool)}
      _ -> {:nx, Calls.draw()}
    end
  end

  defp operation(expression, huge?) do
    for x <- Native.run([expression], :cpu),
        bytes = Native.nbytes(x),
        bytes <= @readable or bytes > @beyond do
      # A reduction of many elements takes its time: what it reads is not computed.
      if not huge? or bytes > @beyond do
        ^bytes = byte_size(Native.to_binary(x))
      end
    end

    :ok
  rescue
    _ in [ArgumentError, Emily.Error] -> :ok
    error -> raised(elem(expression, 0), error, expression)
  end

  defp function(state, module, name, arguments) do
    apply(module, name, arguments)
    :ok
  rescue
    _ in [ArgumentError, Emily.Error] -> :ok
    error -> raised({module, name}, error, arguments)
  catch
    kind, reason -> {:fault, inspect({module, name, kind}), shown({reason, arguments})}
  after
    if Functions.sets?(name), do: Functions.restore(state.settings)
    drop_messages()
  end

  # What a stub was asked for is answered to this process, which waits for nothing.
  defp drop_messages do
    receive do
      _ -> drop_messages()
    after
      0 -> :ok
    end
  end

  defp raised(where, error, what) do
    key = inspect({where, error.__struct__})
    {:fault, key, shown(what) <> "\n" <> message(error)}
  end

  defp message(error), do: error |> Exception.message() |> String.slice(0, 400)

  ## Nx's functions

  defp nx({module, name, arguments}) do
    emily = result(Emily.Backend, module, name, arguments)

    asked = asked(module, name, arguments)

    case {emily, fn -> result(Nx.BinaryBackend, module, name, asked) end} do
      {{:value, value}, binary} ->
        compare(value, binary.(), {module, name, arguments})

      {{:raised, %struct{}}, _} when struct in [Emily.Error] ->
        told(emily, nil, {module, name, arguments})

      {{:raised, error}, binary} ->
        told({:raised, error}, binary.(), {module, name, arguments})
    end
  end

  # Nx.BinaryBackend pads with the bytes of the number, whatever the tensor's type: where a number has more of them than an
  # element, there are with each axis more elements than the shape says, until no memory holds them.
  defp asked(Nx, :pad, [x, number | rest]) when is_float(number),
    do: [Nx.as_type(x, Nx.Type.merge_number(x.type, number)), number | rest]

  defp asked(_module, _name, arguments), do: arguments

  defp told({:raised, error}, binary, call) do
    case binary do
      {:raised, %struct{}} when struct == error.__struct__ ->
        :ok

      # Nx.BinaryBackend fails in its own ways, and Emily says what is wrong.
      {:raised, _} when error.__struct__ == ArgumentError ->
        :ok

      # Emily has no tensors without elements, which nothing but Nx.pad/3 makes.
      {:value, {_type, shape, _axes}} when is_tuple(shape) and elem(call, 1) == :pad ->
        if Tuple.product(shape) == 0, do: :ok, else: raises(error, call, binary)

      # Whether a matrix is singular, two of whose columns are alike, is for rounding to say.
      {:value, _} when elem(call, 0) == Nx.LinAlg ->
        if message(error) =~ "singular matrix", do: :ok, else: raises(error, call, binary)

      nil ->
        {:fault, key(call, "raises Emily.Error"), shown(call) <> "\n" <> message(error)}

      other ->
        raises(error, call, other)
    end
  end

  defp raises(error, call, other) do
    {:fault, key(call, "raises #{inspect(error.__struct__)}"),
     shown(call) <> "\n" <> message(error) <> "\nNx.BinaryBackend: " <> shown(other)}
  end

  defp compare(value, {:value, other}, call) do
    # Nx.BinaryBackend gives some results another type than Nx says they have.
    if value == other or value == declared(call) or {elem(call, 0), elem(call, 1)} in @two_types,
      do: :ok,
      else: {:fault, key(call, "differs in shape or type"), shown({call, value, other})}
  end

  # What Nx.BinaryBackend cannot do, Emily may.
  defp compare(_value, {:raised, _}, _call), do: :ok

  defp key({module, name, _}, what), do: "#{inspect(module)}.#{name} #{what}"

  # Types and shapes that Nx says a call gives.
  defp declared(call) do
    call |> Calls.declared() |> shapes()
  rescue
    error -> {:raised, error}
  end

  defp shapes(%Nx.Tensor{} = x), do: {x.type, x.shape, x.vectorized_axes}
  defp shapes(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> Enum.map(&shapes/1)
  defp shapes(_other), do: :other

  # Types and shapes of what a call gives, computed and read.
  defp result(backend, module, name, arguments) do
    Nx.with_default_backend(backend, fn ->
      {:value, module |> apply(name, moved(arguments, backend)) |> read()}
    end)
  rescue
    error -> {:raised, error}
  end

  defp moved(arguments, backend) do
    Enum.map(arguments, fn
      %Nx.Tensor{} = x -> Nx.backend_copy(x, backend)
      list when is_list(list) -> moved(list, backend)
      other -> other
    end)
  end

  defp read(%Nx.Tensor{} = x) do
    {_, bits} = x.type
    size = bits * Nx.size(Nx.devectorize(x))
    ^size = bit_size(Nx.to_binary(Nx.devectorize(x)))
    shapes(x)
  end

  defp read(list) when is_list(list), do: length(list)
  defp read(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> Enum.map(&read/1)
  defp read(binary) when is_binary(binary), do: byte_size(binary)
  defp read(%Stream{} = stream), do: stream |> Enum.to_list() |> Enum.map(&read/1)
  defp read(fun) when is_function(fun), do: fun |> Enum.to_list() |> Enum.map(&read/1)
  defp read(_other), do: :other
end
