defmodule Emily.CheckedBackend do
  @moduledoc false
  # A backend that computes each operation by Emily.Backend, and on the same numbers by Nx.BinaryBackend in f64.
  #
  # So whatever runs on a backend, a gradient too, is checked operation by operation, and no difference grows on its way
  # through a program.

  @behaviour Nx.Backend

  Code.ensure_loaded!(Nx)

  import Kernel, except: [inspect: 2]
  alias Emily.CheckedBackend, as: C
  alias Nx.BinaryBackend
  alias Nx.Tensor, as: T

  @enforce_keys [:tensor]
  defstruct [:tensor]

  @doc """
  The differences since the last call, as name of the operation, kind and text.

  Kinds are `:zero`, its sign, `:nan`, where one of the two is no finite number or comes of one, `:number`, and
  `:complex`, numbers that come of complex ones.
  """
  def differences do
    receive do
      {C, difference} -> [difference | differences()]
    after
      0 -> []
    end
  end

  # What adds or multiplies many numbers. Each addition in the result's type may round a partial sum, which is no more than the
  # sum of the magnitudes.
  @sums [:sum, :dot, :conv, :window_sum, :indexed_add, :cumulative_sum] ++
          [:window_scatter_max, :window_scatter_min]

  # What moves elements, and never looks at them.
  @moves [:reshape, :squeeze, :broadcast, :transpose, :reverse, :slice] ++
           [:gather, :take, :take_along_axis]

  # Real numbers of complex ones.
  @real [:real, :imag, :abs, :phase, :as_type]

  @elementwise Enum.map(Nx.Shared.unary_math_funs(), &elem(&1, 0)) ++
                 [
                   :add,
                   :subtract,
                   :multiply,
                   :divide,
                   :pow,
                   :remainder,
                   :atan2,
                   :max,
                   :min,
                   :clip
                 ] ++
                 [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal]

  @new [:constant, :iota, :eye, :from_binary]
  @own [:init, :backend_copy, :backend_transfer, :backend_deallocate, :to_batched, :to_binary] ++
         [:inspect, :from_pointer, :to_pointer, :block, :optional] ++ @new

  @impl true
  def init(opts), do: Emily.Backend.init(opts)

  for {name, arity} <- Nx.Backend.behaviour_info(:callbacks), name not in @own do
    args = Macro.generate_arguments(arity - 1, __MODULE__)

    @impl true
    def unquote(name)(out, unquote_splicing(args)) do
      args = unquote(args)
      checked(unquote(name), out, args, &apply(&1, unquote(name), [&2 | &3]))
    end
  end

  for name <- @new do
    args = Macro.generate_arguments(if(name == :eye, do: 0, else: 1), __MODULE__)

    @impl true
    def unquote(name)(out, unquote_splicing(args), opts),
      do: wrap(Emily.Backend.unquote(name)(out, unquote_splicing(args), opts))
  end

  # Of Nx 0.12 and later; what 0.11 calls by name it composes of operations here.
  if function_exported?(Nx, :block, 4) do
    @impl true
    def block(struct, out, args, fun) do
      checked(name(struct), out, args, fn
        Emily.Backend, out, args ->
          Emily.Backend.block(struct, out, args, fun)

        backend, _out, args ->
          Nx.with_default_backend(backend, fn -> apply(fun, [struct | args]) end)
      end)
    end

    defp name(%module{}),
      do: module |> Module.split() |> List.last() |> Macro.underscore() |> String.to_atom()
  end

  @impl true
  def backend_copy(tensor, backend, opts), do: backend_transfer(tensor, backend, opts)

  @impl true
  def backend_transfer(tensor, C, _opts), do: tensor

  def backend_transfer(tensor, backend, opts),
    do: Emily.Backend.backend_copy(emily(tensor), backend, opts)

  @impl true
  def backend_deallocate(_tensor), do: :ok

  @impl true
  def to_binary(tensor, limit), do: Emily.Backend.to_binary(emily(tensor), limit)

  @impl true
  def inspect(tensor, opts), do: Emily.Backend.inspect(emily(tensor), opts)

  @impl true
  def to_batched(_out, _tensor, _opts), do: raise("not here")
  @impl true
  def to_pointer(_tensor, _opts), do: raise("not here")
  @impl true
  def from_pointer(_pointer, _type, _shape, _backend_opts, _opts), do: raise("not here")

  ## Tensors of each backend

  defp wrap(%T{} = tensor), do: %{tensor | data: %C{tensor: tensor}}
  defp wrap(tuple), do: tuple |> Tuple.to_list() |> Enum.map(&wrap/1) |> List.to_tuple()

  @doc "Emily's tensor."
  def emily(%T{data: %C{tensor: tensor}} = outer),
    do: %{tensor | names: outer.names, shape: outer.shape, type: outer.type}

  def emily(%T{} = tensor), do: Nx.backend_copy(tensor, Emily.Backend)

  defp each(args, fun) do
    Enum.map(args, fn
      %T{} = tensor -> fun.(tensor)
      list when is_list(list) -> each(list, fun)
      other -> other
    end)
  end

  defp exact(%T{data: %BinaryBackend{}} = tensor), do: widen(tensor)
  defp exact(tensor), do: tensor |> emily() |> Nx.backend_copy(BinaryBackend) |> widen()

  # Beside floats, and for functions of floats, integers become floats first; f64 has all those of 32 bits.
  defp promoted(args, name, out) when name in @elementwise do
    type =
      for(%T{type: type} <- [out | args], Nx.Type.float?(type), do: type)
      |> Enum.max_by(&elem(&1, 1), fn -> nil end)

    each(args, fn
      %T{type: {kind, bits}} = x when kind in [:s, :u] and bits > 16 and elem(type, 1) < 64 ->
        x |> exact() |> Nx.as_type(:f32)

      %T{type: {kind, 64}} = x when kind in [:s, :u] and type == {:f, 64} ->
        x |> exact() |> Nx.as_type(:f64)

      x ->
        x
    end)
  end

  defp promoted(args, _name, _out), do: args

  # Nx's evaluator hands over the gradient of a loop in another type than its node says. Nx.BinaryBackend moves its bytes
  # and calls them numbers of the node's type; meant are its numbers.
  defp moved([%T{} = x | rest], name, %T{type: type}) when name in @moves and x.type != type,
    do: [Nx.as_type(x, wide(type)) | rest]

  defp moved(args, _name, _out), do: args

  # A condition is true or not, whatever the result's type.
  defp numbers([condition | rest], :select, out), do: [condition | numbers(rest, nil, out)]
  defp numbers(args, _name, out), do: each(args, &number(&1, out))

  # What has no axes is taken for a number of the caller's code, which Nx makes bf16 of by cutting off.
  defp number(%T{shape: {}, type: {kind, _}} = x, %T{type: {to, 16} = type})
       when kind != :c and to in [:f, :bf],
       do: x |> emily() |> Nx.backend_copy(BinaryBackend) |> Nx.as_type(type)

  defp number(tensor, _out), do: tensor

  defp widen(%T{type: {kind, bits}} = tensor) when kind in [:f, :bf] and bits < 64,
    do: Nx.as_type(tensor, :f64)

  defp widen(%T{type: {:c, 64}} = tensor), do: Nx.as_type(tensor, :c128)
  defp widen(tensor), do: tensor

  defp wide({kind, _}) when kind in [:f, :bf], do: {:f, 64}
  defp wide({:c, _}), do: {:c, 128}
  defp wide(type), do: type

  ## The check

  defp checked(name, out, args, fun) do
    actual = fun.(Emily.Backend, out, each(args, &emily/1))

    exact =
      args |> promoted(name, out) |> numbers(name, out) |> each(&exact/1) |> moved(name, out)

    if comparable?(name, out, args), do: compare(name, actual, out, exact, fun)
    wrap(actual)
  end

  defp comparable?(:bitcast, _out, _args), do: false

  # Nx.BinaryBackend pads with the bytes of a number, whatever its type.
  defp comparable?(:pad, out, [x, value | _]), do: x.type == out.type and value.type == out.type

  # Nx says f32 of the gradient of a loop in c64, and so of what is computed of it: Emily takes the real parts before, and
  # Nx.BinaryBackend after.
  defp comparable?(name, %T{type: {kind, _}}, args) when kind in [:f, :bf] and name not in @real,
    do: not Enum.any?(args, &match?(%T{type: {:c, _}}, &1))

  defp comparable?(_name, _out, _args), do: true

  defp compare(name, %T{} = actual, %T{} = out, args, fun) do
    template = %{out | type: wide(out.type)}

    with {:ok, expected} <- computed(fun, template, args),
         {:ok, sizes} <- sizes(name, fun, template, args) do
      numbers = actual |> Nx.backend_copy(BinaryBackend) |> Nx.to_flat_list()

      [numbers, Nx.to_flat_list(expected), sizes || Nx.to_flat_list(expected)]
      |> Enum.zip_with(fn [a, e, size] -> {a, e, difference(a, e, size, out.type)} end)
      |> Enum.with_index(fn {a, e, kind}, at ->
        {a, e, kind && of_finite(kind, name, out, args, at)}
      end)
      |> Enum.find(fn {_, _, kind} -> kind end)
      |> report(name, args, out)
    end
  end

  defp compare(_name, _actual, _out, _args, _fun), do: :ok

  defp computed(fun, out, args) do
    {:ok, fun.(BinaryBackend, out, args)}
  rescue
    _refused -> :refused
  end

  defp sizes(name, fun, out, args) when name in @sums,
    do:
      with(
        {:ok, sizes} <- computed(fun, out, each(args, &magnitudes/1)),
        do: {:ok, Nx.to_flat_list(sizes)}
      )

  # Each multiplication rounds, of f64 and of complex numbers.
  defp sizes(:window_product, fun, %T{type: type} = out, [_, window | _] = args)
       when type in [{:f, 64}, {:c, 128}] do
    with {:ok, expected} <- computed(fun, out, args) do
      share = max(1, Tuple.product(window) / 8)
      {:ok, for(number <- Nx.to_flat_list(expected), do: times(number, share))}
    end
  end

  defp sizes(_name, _fun, _out, _args), do: {:ok, nil}

  defp times(%Complex{re: re, im: im}, share) when is_number(re) and is_number(im),
    do: Complex.new(share * re, share * im)

  defp times(number, share), do: is_number(number) && share * number

  # The least integer of a narrow type has no magnitude in it.
  defp magnitudes(%T{type: {:s, _}} = x), do: x |> Nx.as_type(:s64) |> Nx.abs()
  # Nx.BinaryBackend pads in the type of the result.
  defp magnitudes(%T{type: {:c, _} = type} = x), do: x |> Nx.abs() |> Nx.as_type(type)
  defp magnitudes(x), do: Nx.abs(x)

  defp report(nil, _name, _args, _out), do: :ok

  defp report({actual, expected, kind}, name, args, out) do
    text =
      "#{Kernel.inspect(actual)} instead of #{Kernel.inspect(expected)}, #{Nx.Type.to_string(out.type)}, of " <>
        Kernel.inspect(args, limit: 60)

    complex? = Enum.any?(List.flatten([out | args]), &match?(%T{type: {:c, _}}, &1))

    case {complex?, kind} do
      {false, kind} -> send(self(), {C, {name, kind, text}})
      {true, :number} -> send(self(), {C, {name, :complex, text}})
      # Zeros, NaN and infinities of complex numbers are as in C.
      {true, _} -> :ok
    end
  end

  defp difference(%Complex{} = a, e, size, type) do
    {e_re, e_im} = if is_struct(e), do: {e.re, e.im}, else: {e, 0.0}
    size = if is_struct(size), do: magnitude(size), else: size
    # Beside an infinity nothing is known of what was added up.
    if size != :unknown,
      do: difference(a.re, e_re, size, type) || difference(a.im, e_im, size, type)
  end

  defp difference(a, a, _size, _type), do: nil
  defp difference(a, e, _size, _type) when a == 0 and e == 0, do: :zero

  defp difference(a, e, size, type) when is_number(e) and is_float(a) do
    size = if is_number(size), do: max(abs(size), abs(e)), else: 0.0
    if abs(a - e) <= precision(type) * size + least(type), do: nil, else: :number
  end

  defp difference(a, e, _size, type) when is_float(e) and a in [:infinity, :neg_infinity] do
    sign = if a == :infinity, do: 1, else: -1
    if e * sign > greatest(type), do: nil, else: :nan
  end

  defp difference(a, e, _size, _type) when is_number(a) and is_number(e), do: :number
  defp difference(_a, _e, _size, _type), do: :nan

  # What a function makes of a number that is not finite is no matter of digits.
  defp of_finite(:number, name, out, args, at) when name in @elementwise or name == :sign do
    finite? =
      Enum.all?(args, fn x ->
        x |> Nx.broadcast(out.shape) |> Nx.to_flat_list() |> Enum.at(at) |> finite?()
      end)

    if finite?, do: :number, else: :nan
  end

  defp of_finite(kind, _name, _out, _args, _at), do: kind

  defp finite?(%Complex{re: re, im: im}), do: finite?(re) and finite?(im)
  defp finite?(number), do: is_number(number)

  defp magnitude(%{re: re, im: im}) when is_number(re) and is_number(im),
    do: max(abs(re), abs(im))

  defp magnitude(_other), do: :unknown

  # One half of a unit in the last place, and a few of them where functions are computed in the type.
  defp precision({:bf, 16}), do: 1.01 * :math.pow(2, -8)
  defp precision({:f, 16}), do: 1.01 * :math.pow(2, -11)
  defp precision({:f, 64}), do: 1.0e-13
  defp precision(_f32), do: :math.pow(2, -21)

  defp least({:f, 16}), do: :math.pow(2, -24)
  defp least({:f, 64}), do: :math.pow(2, -1022)
  defp least(_type), do: :math.pow(2, -126)

  defp greatest({:bf, 16}), do: 3.3895e38
  defp greatest({:f, 16}), do: 65_504
  defp greatest({:f, 64}), do: 1.7e308
  defp greatest(_type), do: 3.4028e38
end
