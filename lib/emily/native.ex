defmodule Emily.Native do
  @moduledoc """
  MLX arrays and operations, without Nx.

  An array is a reference to an MLX array. Operations are lazy: `run/2` and the fused kernels add
  to a graph and return at once; `eval/1`, `to_binary/1` and `item/1` compute. What computes waits
  for a message from the worker of the array's stream, so no scheduler waits for a computation.

      iex> x = Emily.Native.from_binary(<<1.0::float-32-native, 2.0::float-32-native>>, [2], :f32)
      iex> [y] = Emily.Native.run([{:add, x, {:multiply, x, x}}])
      iex> for <<v::float-32-native <- Emily.Native.to_binary(y)>>, do: v
      [2.0, 6.0]

  ## Types

  `:bool`, `:u8`, `:u16`, `:u32`, `:u64`, `:s8`, `:s16`, `:s32`, `:s64`, `:f16`, `:bf16`, `:f32`,
  `:f64` (on the CPU only) and `:c64`.

  ## Devices

  Where a function takes a device, it takes `:cpu`, `:gpu`, which is the first card, `{:gpu, index}` or a stream from
  `stream_new/1`. Without one the default device is used, which is the first GPU where there is one.

  ## Expressions

  `run/2` takes nested tuples, each the name of an operation followed by its arguments, such as `{:add, x, y}`:
  `Emily.Native.Expression` has the names and what they mean.

  Every size is at least one: as in Nx, there are no empty arrays. An array has at most 1024 axes.

  What a call holds is counted: list elements, bytes of text, elements of tuples and 8 more for each tuple, what a term
  shares as often as it is named. Above 2^21 it is refused with an `ArgumentError`.

  Every argument is checked: a wrong one raises `ArgumentError`, what MLX itself refuses raises
  `Emily.Error`, and none ends the VM.
  """

  alias Emily.Native.{Answer, Garbage, Nif, Number, Options, Threads}

  @typedoc "A reference to an MLX array."
  @type array :: reference()

  @typedoc "A reference to a stream of work on a device."
  @opaque stream :: reference()

  @typedoc "A device, as its default stream, or a stream."
  @type device :: device_name() | stream()

  @typedoc "A device: the CPU, the first GPU, or any by its index, from 0."
  @type device_name :: :cpu | :gpu | {:gpu, non_neg_integer()}

  @typedoc "A type of elements."
  @type dtype ::
          :bool
          | :u8
          | :u16
          | :u32
          | :u64
          | :s8
          | :s16
          | :s32
          | :s64
          | :f16
          | :bf16
          | :f32
          | :f64
          | :c64

  @typedoc "Nested tuples that name operations; see `Emily.Native.Expression`."
  @type expression :: Emily.Native.Expression.t()

  # A copy up to this many bytes keeps a scheduler well below a millisecond.
  @large 262_144

  @doc """
  An array from its bytes: row-major, in the machine's byte order. The bytes are copied once.

  `shape` is a list or a tuple of sizes. Raises `ArgumentError` where the shape, the type and the
  number of bytes do not fit together.

      iex> Emily.Native.from_binary(<<1, 2, 3, 4, 5, 6>>, {2, 3}, :u8) |> Emily.Native.shape()
      {2, 3}
  """
  @spec from_binary(binary(), tuple() | [pos_integer()], dtype(), device()) :: array()
  def from_binary(binary, shape, dtype, device \\ default_device())

  def from_binary(binary, shape, dtype, device) when is_tuple(shape),
    do: from_binary(binary, Tuple.to_list(shape), dtype, device)

  def from_binary(binary, shape, dtype, device) when is_binary(binary) and is_list(shape) do
    if byte_size(binary) > @large do
      Garbage.collect()
      Nif.from_large_binary(binary, sizes("from_binary", shape), dtype, device)
    else
      Nif.from_binary(binary, sizes("from_binary", shape), dtype, device)
    end
  end

  def from_binary(binary, shape, _dtype, _device) do
    raise ArgumentError,
          "from_binary: expected a binary and a shape, got " <>
            "#{shown(binary)} and #{shown(shape)}"
  end

  defp sizes(op, shape) do
    if not List.improper?(shape) and Enum.all?(shape, &(is_integer(&1) and &1 in 1..0x7FFFFFFF)),
      do: shape,
      else: raise(ArgumentError, "#{op}: sizes must be 1..2^31-1, got #{shown(shape)}")
  end

  # Of a term that shares its parts, `inspect` would write each as often as it is named.
  defp shown(term), do: inspect(term, limit: 10)

  @doc """
  An array from its bytes in a file: from `offset` on, row-major, in the machine's byte order. They
  are read into MLX's memory; the BEAM's heap holds none of them.

  Raises `ArgumentError` where the file cannot be read or ends before the array does.

      iex> path = Path.join(System.tmp_dir!(), "emily-from-file-\#{System.pid()}")
      iex> File.write!(path, <<0, 1, 2, 3, 4, 5, 6>>)
      iex> x = Emily.Native.from_file(path, 1, {2, 3}, :u8)
      iex> File.rm!(path)
      iex> Emily.Native.to_binary(x)
      <<1, 2, 3, 4, 5, 6>>
  """
  @spec from_file(Path.t(), non_neg_integer(), tuple() | [pos_integer()], dtype(), device()) ::
          array()
  def from_file(path, offset, shape, dtype, device \\ default_device())

  def from_file(path, offset, shape, dtype, device) when is_tuple(shape),
    do: from_file(path, offset, Tuple.to_list(shape), dtype, device)

  def from_file(path, offset, shape, dtype, device)
      when offset in 0..0x7FFFFFFFFFFFFFFF and is_list(shape) do
    Garbage.collect()
    path = Options.path!(path, "from_file")
    Nif.from_file(path, offset, sizes("from_file", shape), dtype, device)
  end

  def from_file(_path, offset, shape, _dtype, _device) do
    raise ArgumentError,
          "from_file: expected an offset of 0..2^63-1 and a shape, got " <>
            "#{shown(offset)} and #{shown(shape)}"
  end

  @doc """
  The array's bytes, row-major, computed where they are not yet.

  A large binary refers to the array's memory and keeps it alive; a small one is a copy.

      iex> [x] = Emily.Native.run([{:full, [2], 7, :u8}])
      iex> Emily.Native.to_binary(x)
      <<7, 7>>
  """
  @spec to_binary(array()) :: binary()
  def to_binary(array), do: to_binary(array, nil, fn _binary, _start -> :ok end)

  @doc false
  # `evaluated` is called with the binary and the time before the call where the array was not computed yet. `:other` is
  # the answer where the array has another type than `dtype`, which is nil for any.
  def to_binary(array, dtype, evaluated) do
    Garbage.without(fn ->
      tag = make_ref()
      start = System.monotonic_time()

      case Nif.to_binary(array, dtype, tag) do
        binary when is_binary(binary) -> binary
        {:computed, binary} -> tap(binary, &evaluated.(&1, start))
        :other -> :other
        :queued -> tag |> Answer.await() |> tap(&evaluated.(&1, start))
        :full -> Answer.again(fn -> to_binary(array, dtype, evaluated) end)
      end
    end)
  end

  @doc """
  The address of the array's bytes, row-major, computed where they are not yet.

  It is that of the array's own memory, which must not be written to, and stays as long as the array
  is referred to. Of an array in another order, such as a transposed view, it is that of a copy, which
  stays as long.

      iex> [x] = Emily.Native.run([{:full, [2], 7, :u8}])
      iex> address = Emily.Native.address(x)
      iex> address == Emily.Native.address(x)
      true
  """
  @spec address(array()) :: pos_integer()
  def address(array) do
    tag = make_ref()

    case Nif.address(array, tag) do
      address when is_integer(address) -> address
      :queued -> Answer.await(tag)
      :full -> Answer.again(fn -> address(array) end)
    end
  end

  @doc """
  An array from its bytes at an address of this process, row-major, in the machine's byte order. The
  bytes are copied.

  Raises `ArgumentError` where they cannot be read, whatever the address. Memory that is mapped may be
  read whoever it belongs to.

      iex> [x] = Emily.Native.run([{:arange, 0, 6, 1, :u8}])
      iex> y = Emily.Native.from_address(Emily.Native.address(x), {2, 3}, :u8)
      iex> {Emily.Native.shape(y), Emily.Native.to_binary(y)}
      {{2, 3}, <<0, 1, 2, 3, 4, 5>>}
      iex> Emily.Native.from_address(1, {2, 3}, :u8)
      ** (ArgumentError) from_address: 6 bytes at 0x1 cannot be read: Bad address (os error 14) at 0x1
  """
  @spec from_address(non_neg_integer(), tuple() | [pos_integer()], dtype(), device()) :: array()
  def from_address(address, shape, dtype, device \\ default_device())

  def from_address(address, shape, dtype, device) when is_tuple(shape),
    do: from_address(address, Tuple.to_list(shape), dtype, device)

  def from_address(address, shape, dtype, device)
      when address in 0..0xFFFFFFFFFFFFFFFF and is_list(shape) do
    Garbage.collect()
    Nif.from_address(address, sizes("from_address", shape), dtype, device)
  end

  def from_address(address, shape, _dtype, _device) do
    raise ArgumentError,
          "from_address: expected an address of 0..2^64-1 and a shape, got " <>
            "#{shown(address)} and #{shown(shape)}"
  end

  @doc """
  The array's one element: a number, `:nan`, `:infinity`, `:neg_infinity`, or `{re, im}`.

      iex> [x] = Emily.Native.run([{:sum, {:arange, 0, 5, 1, :s32}, [0], false}])
      iex> Emily.Native.item(x)
      10
  """
  @spec item(array()) :: number() | :nan | :infinity | :neg_infinity | {number(), number()}
  def item(array) do
    dtype = dtype(array)

    case Nif.shape(array) |> Enum.product() do
      1 -> array |> to_binary() |> Number.decode(dtype)
      _ -> raise ArgumentError, "item: expected one element, got shape #{inspect(shape(array))}"
    end
  end

  @doc """
  The array's shape, without computing it.

      iex> [x] = Emily.Native.run([{:full, [2, 3], 0, :f32}])
      iex> Emily.Native.shape(x)
      {2, 3}
  """
  @spec shape(array()) :: tuple()
  def shape(array), do: array |> Nif.shape() |> List.to_tuple()

  @doc """
  The array's type, without computing it.

      iex> [x] = Emily.Native.run([{:full, [], 0, :bf16}])
      iex> Emily.Native.dtype(x)
      :bf16
  """
  @spec dtype(array()) :: dtype()
  def dtype(array), do: Nif.dtype(array)

  @doc """
  The size of the array's elements in bytes.

      iex> [x] = Emily.Native.run([{:full, [2, 3], 0, :f32}])
      iex> Emily.Native.nbytes(x)
      24
  """
  @spec nbytes(array()) :: non_neg_integer()
  def nbytes(array), do: Nif.nbytes(array)

  @doc """
  Has nobody use an array, or a list of them, from here on: whoever does gets an `ArgumentError`. What was built on it, and
  binaries that were read from it, stay what they are. The memory is free when these are gone.

      iex> [x] = Emily.Native.run([{:full, [2], 1, :f32}])
      iex> Emily.Native.give_away(x)
      :ok
      iex> Emily.Native.nbytes(x)
      ** (ArgumentError) the tensor was donated to a call, which has taken its memory: use what that call has returned
  """
  @spec give_away(array() | [array()]) :: :ok
  def give_away(arrays), do: arrays |> List.wrap() |> Nif.give_away()

  @doc """
  Computes arrays and waits for them.

  Raises `Emily.Error` where MLX fails.

      iex> [x] = Emily.Native.run([{:full, [2], 1, :f32}])
      iex> Emily.Native.eval(x)
      :ok
  """
  @spec eval(array() | [array()]) :: :ok
  def eval(arrays) do
    Garbage.without(fn ->
      tag = make_ref()

      case Nif.evaluate(List.wrap(arrays), tag) do
        :ready -> :ok
        :queued -> Answer.await(tag)
        :full -> Answer.again(fn -> eval(arrays) end)
      end
    end)
  end

  @doc """
  Starts computing arrays, and returns once they are scheduled.

      iex> [x] = Emily.Native.run([{:full, [2], 1, :f32}])
      iex> Emily.Native.async_eval([x])
      :ok
  """
  @spec async_eval(array() | [array()]) :: :ok
  def async_eval(arrays) do
    tag = make_ref()

    case Nif.schedule(List.wrap(arrays), tag) do
      :ready -> :ok
      :queued -> Answer.await(tag)
      :full -> Answer.again(fn -> async_eval(arrays) end)
    end
  end

  @doc """
  Builds the graphs of expressions and returns their arrays, uncomputed, in order; an expression of
  several results gives as many.

  With linear algebra among them the arrays are computed, since that may fail: what fails raises
  here, and never where somebody reads an array.

      iex> [q, r] = Emily.Native.run([{:qr, {:eye, 2, 2, 0, :f32}}], :cpu)
      iex> {Emily.Native.shape(q), Emily.Native.shape(r)}
      {{2, 2}, {2, 2}}

      iex> Emily.Native.run([{:reshape, {:full, [3], 0, :f32}, [2]}])
      ** (Emily.Error) [reshape] Cannot reshape array of size 3 into shape (2).
  """
  @spec run([expression()], device()) :: [array()]
  def run(expressions, device \\ default_device()) do
    case Nif.run(expressions, device) do
      :long -> expressions |> Nif.run_long(device) |> built()
      built -> built(built)
    end
  end

  @doc false
  def built({:arrays, arrays}), do: arrays

  # Linear algebra may fail: it is computed while its caller is here.
  def built({:evaluate, arrays}) do
    eval(arrays)
    arrays
  end

  @doc """
  `x * rsqrt(mean(x^2) + eps) * weight` over the last axis, by `mx::fast::rms_norm`.

  `weight` has the shape of that axis, or is `nil`.

      iex> [x] = Emily.Native.run([{:full, [1, 4], 2.0, :f32}])
      iex> Emily.Native.rms_norm(x, nil, 0.0) |> Emily.Native.shape()
      {1, 4}
  """
  @spec rms_norm(array(), array() | nil, number(), device()) :: array()
  def rms_norm(x, weight, eps, device \\ default_device()),
    do: Nif.rms_norm(x, weight, eps, device)

  @doc """
  `(x - mean(x)) * rsqrt(variance(x) + eps) * weight + bias` over the last axis, by
  `mx::fast::layer_norm`.

  `weight` and `bias` have the shape of that axis, or are `nil`.

      iex> [x] = Emily.Native.run([{:full, [1, 4], 2.0, :f32}])
      iex> Emily.Native.layer_norm(x, nil, nil, 1.0e-5) |> Emily.Native.shape()
      {1, 4}
  """
  @spec layer_norm(array(), array() | nil, array() | nil, number(), device()) :: array()
  def layer_norm(x, weight, bias, eps, device \\ default_device()),
    do: Nif.layer_norm(x, weight, bias, eps, device)

  @doc """
  Rotary position embedding of the last axis, by `mx::fast::rope`: the plane `i` of position `p`
  turns by `p * scale / base^(2i / dims)`.

  Positions run along the last axis but one and begin at `offset`, an integer array: a scalar, or
  one for each entry of the first axis. With `traditional` a plane is a pair of neighbours, else
  the two halves of `dims`. What lies beyond `dims` passes unchanged.

      iex> [x, offset] = Emily.Native.run([{:full, [1, 1, 2, 4], 1.0, :f32}, {:full, [], 0, :s32}])
      iex> Emily.Native.rope(x, offset, dims: 4) |> Emily.Native.shape()
      {1, 1, 2, 4}

  ## Options

    * `:dims` - how many entries of the last axis turn; even. Required.
    * `:traditional` - the layout of planes. Default `false`.
    * `:base` - default `10_000.0`.
    * `:scale` - default `1.0`.
    * `:device` - default `default_device/0`.
  """
  @spec rope(array(), array(), keyword()) :: array()
  def rope(x, offset, opts) do
    opts =
      Options.validate!(
        opts,
        [:dims, :device, traditional: false, base: 10_000.0, scale: 1.0],
        "Emily.Native.rope/3"
      )

    device = opts[:device] || default_device()
    Nif.rope(x, opts[:dims], opts[:traditional], opts[:base], opts[:scale], offset, device)
  end

  @doc """
  `rope/3` with the period of each plane given: the plane `i` of position `p` turns by
  `p * scale / freqs[i]`.

  `freqs` has the shape `{div(dims, 2)}`. The options are those of `rope/3` without `:base`.

      iex> [x, offset, freqs] =
      ...>   Emily.Native.run([
      ...>     {:full, [1, 1, 2, 4], 1.0, :f32},
      ...>     {:full, [], 0, :s32},
      ...>     {:full, [2], 1.0, :f32}
      ...>   ])
      iex> Emily.Native.rope_with_freqs(x, offset, freqs, dims: 4) |> Emily.Native.shape()
      {1, 1, 2, 4}
  """
  @spec rope_with_freqs(array(), array(), array(), keyword()) :: array()
  def rope_with_freqs(x, offset, freqs, opts) do
    opts =
      Options.validate!(
        opts,
        [:dims, :device, traditional: false, scale: 1.0],
        "Emily.Native.rope_with_freqs/4"
      )

    device = opts[:device] || default_device()
    Nif.rope_with_freqs(x, opts[:dims], opts[:traditional], opts[:scale], offset, freqs, device)
  end

  @doc """
  `softmax(scale * q k^T + mask) v`, by `mx::fast::scaled_dot_product_attention`.

  `q` has the shape `{batch, heads, queries, dims}`; `k` and `v` may have fewer heads, each serving
  as many of `q`'s. The type is that of `q`.

      iex> [q] = Emily.Native.run([{:full, [1, 2, 3, 4], 1.0, :f32}])
      iex> Emily.Native.attention(q, q, q, scale: 0.5, mask: :causal) |> Emily.Native.shape()
      {1, 2, 3, 4}

  ## Options

    * `:scale` - required.
    * `:mask` - `nil` (default), `:causal` (the last query sees every key), or an array that
      broadcasts to `{batch, heads, queries, keys}`: added, or, if boolean, kept where true.
    * `:sinks` - an array of shape `{heads}`, one more logit for each head, which takes part in
      the softmax's denominator only. Default `nil`.
    * `:device` - default `default_device/0`.
  """
  @spec attention(array(), array(), array(), keyword()) :: array()
  def attention(q, k, v, opts) do
    opts =
      Options.validate!(
        opts,
        [:scale, :device, mask: nil, sinks: nil],
        "Emily.Native.attention/4"
      )

    device = opts[:device] || default_device()
    Nif.attention(q, k, v, opts[:scale], opts[:mask], opts[:sinks], device)
  end

  @doc """
  Einstein summation over up to 64 arrays, by `mx::einsum`, in the cheapest order.

      iex> [x] = Emily.Native.run([{:eye, 2, 2, 0, :f32}])
      iex> Emily.Native.einsum("ij,jk->ik", [x, x]) |> Emily.Native.shape()
      {2, 2}
  """
  @spec einsum(String.t(), [array()], device()) :: array()
  def einsum(subscripts, operands, device \\ default_device()),
    do: Nif.einsum(subscripts, operands, device)

  @doc """
  The devices that this build of MLX and this machine have: `:cpu`, then `:gpu`, `{:gpu, 1}` and so on.

      iex> :cpu in Emily.Native.devices()
      true
  """
  @spec devices() :: [device_name()]
  def devices, do: Nif.devices()

  @doc """
  The first GPU where there is one, else the CPU.

      iex> Emily.Native.default_device() in Emily.Native.devices()
      true
  """
  @spec default_device() :: device_name()
  def default_device do
    case :persistent_term.get(__MODULE__, nil) do
      nil ->
        device = if :gpu in devices(), do: :gpu, else: :cpu
        :persistent_term.put(__MODULE__, device)
        device

      device ->
        device
    end
  end

  @doc """
  What a device says of itself, by MLX's own keys.

      iex> Emily.Native.device_info(:cpu) |> is_map()
      true
  """
  @spec device_info(device_name()) :: %{String.t() => String.t() | non_neg_integer()}
  def device_info(device), do: device |> Nif.device_info() |> Map.new()

  @doc """
  MLX's version.

      iex> Emily.Native.mlx_version() =~ ~r/^\\d+\\.\\d+/
      true
  """
  @spec mlx_version() :: String.t()
  def mlx_version, do: Nif.mlx_version()

  @doc """
  A new stream on a device: its work runs beside that of others.

  MLX keeps a stream and its thread for the life of the VM; one that nobody holds any more is given to the next who asks.

      iex> stream = Emily.Native.stream_new(:cpu)
      iex> [x] = Emily.Native.run([{:full, [], 1, :s32}], stream)
      iex> Emily.Native.item(x)
      1
  """
  @spec stream_new(device_name()) :: stream()
  def stream_new(device), do: Nif.stream_new(device)

  @doc """
  Closes a stream: what waits for it, and what it has not computed, raises an `Emily.Error`, and whatever is asked of it later
  an `ArgumentError`. What it has computed stays.

      iex> stream = Emily.Native.stream_new(:cpu)
      iex> Emily.Native.stream_close(stream)
      :ok
      iex> Emily.Native.run([{:full, [], 1, :s32}], stream)
      ** (ArgumentError) the stream is closed
  """
  @spec stream_close(stream()) :: :ok
  def stream_close(stream), do: Nif.stream_close(stream)

  @doc """
  MLX's memory in bytes: `active` in arrays, `cache` freed and kept for the next, `peak` the most
  that was active, and the `limit`.

      iex> Emily.Native.memory() |> Map.keys() |> Enum.sort()
      [:active, :cache, :limit, :peak]
  """
  @spec memory() :: %{
          active: non_neg_integer(),
          cache: non_neg_integer(),
          peak: non_neg_integer(),
          limit: non_neg_integer()
        }
  def memory, do: Nif.memory()

  @doc """
  Sets the memory above which allocations wait for arrays to be freed. Returns the limit before.

      iex> limit = Emily.Native.memory().limit
      iex> ^limit = Emily.Native.set_memory_limit(limit)
      iex> Emily.Native.memory().limit == limit
      true
  """
  @spec set_memory_limit(non_neg_integer()) :: non_neg_integer()
  def set_memory_limit(bytes), do: Nif.set_memory_limit(bytes)

  @doc """
  Sets how many freed bytes MLX keeps for the next arrays. Returns the limit before.

      iex> before = Emily.Native.set_cache_limit(0)
      iex> Emily.Native.set_cache_limit(before)
      0
  """
  @spec set_cache_limit(non_neg_integer()) :: non_neg_integer()
  def set_cache_limit(bytes), do: Nif.set_cache_limit(bytes)

  @doc """
  How many threads compute a product of matrices together on Linux's CPU.

  At first the setting `config :emily, threads: ...`: a number, or `:all` (the default), which stands for all cores
  that the process may use by its affinity and its container's quota. Whoever asks for the product is one of them. Results
  do not depend on the number.

      iex> Emily.Native.threads() > 0
      true
  """
  @spec threads() :: pos_integer()
  def threads, do: Nif.threads()

  @doc """
  The instructions that Emily's own kernels for a CPU are taken for: `"portable"`, `"avx2"`, `"avx_vnni"`,
  `"avx512"`, `"avx512_vnni"`, `"avx512_amx"` or `"neon"`. `nil`
  where `EMILY_KERNELS` is `off` or the build has none: MLX computes then.

      iex> levels = ["portable", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_amx", "neon"]
      iex> Emily.Native.kernels() in [nil | levels]
      true
  """
  @spec kernels() :: String.t() | nil
  def kernels, do: Nif.kernels()

  @doc """
  How many turns of loops this VM has run from recordings, without MLX (see `ARCHITECTURE.md`). It stays at 0 where
  `EMILY_KERNELS` is `off`, and where nobody has looked at the version of MLX.

      iex> Emily.Native.replayed_turns() >= 0
      true
  """
  @spec replayed_turns() :: non_neg_integer()
  def replayed_turns, do: Nif.replayed_turns()

  @doc """
  How many times this VM has run the steps of a program between its loops, conditions and calls from a recording, as
  `replayed_turns/0` counts turns.

      iex> Emily.Native.replayed_runs() >= 0
      true
  """
  @spec replayed_runs() :: non_neg_integer()
  def replayed_runs, do: Nif.replayed_runs()

  @doc """
  Sets how many threads compute a product together: `:all`, or a number from 1 to 1024. Returns the number before.

      iex> before = Emily.Native.set_threads(1)
      iex> Emily.Native.set_threads(before)
      1

  Raises an `ArgumentError` for anything else.
  """
  @spec set_threads(:all | pos_integer()) :: pos_integer()
  def set_threads(threads),
    do: threads |> Threads.check("set_threads") |> Threads.count() |> Nif.set_threads()

  @doc """
  Gives the freed bytes that MLX and the C library keep back to the system, and drops the recorded loops that are kept
  for their next runs, with the tensors that these read.

      iex> Emily.Native.clear_cache()
      :ok
  """
  @spec clear_cache() :: :ok
  def clear_cache, do: Nif.clear_cache()

  @doc """
  Sets the peak of `memory/0` back to what is active now.

      iex> Emily.Native.reset_peak_memory()
      :ok
  """
  @spec reset_peak_memory() :: :ok
  def reset_peak_memory, do: Nif.reset_peak_memory()
end
