defmodule Emily.Doctor.Kernels do
  @moduledoc false
  # Runs MLX in a VM of its own: a library that is broken, or made for another processor, ends that VM and
  # not the doctor's. Needs Elixir and `Emily.Native` only.

  alias Emily.Native

  @marker "emily-doctor:"
  # The first use of CUDA compiles kernels.
  @limit_ms 300_000

  @type result ::
          {:ok, %{version: String.t(), devices: [map]}}
          | {:error, {:load | :run, String.t()} | {:signal, pos_integer} | :time}

  @doc "Runs the kernels in a new VM with `lib/` folders in `paths`."
  @spec run([Path.t()], non_neg_integer) :: result
  def run(ebins \\ ebins(), limit_ms \\ @limit_ms) do
    {erl, boot} = erl(to_string(:code.root_dir()))
    paths = Enum.flat_map(ebins, &["-pa", &1])
    arguments = boot ++ ["-noshell", "-noinput"] ++ paths ++ ["-eval", "'#{__MODULE__}':main()."]

    port =
      Port.open({:spawn_executable, erl}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        :hide,
        args: arguments,
        env: environment()
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    collect(port, pid, [], System.monotonic_time(:millisecond) + limit_ms)
  end

  # Of a release that has OTP within it, erl and its boot script lie elsewhere.
  defp erl(root) do
    erl = Path.join([root, "bin", "erl"])

    if File.exists?(erl) do
      {erl, []}
    else
      {:ok, [[boot] | _]} = :init.get_argument(:boot)
      clean = boot |> Path.dirname() |> Path.join("start_clean")
      version = :erlang.system_info(:version)

      {Path.join([root, "erts-#{version}", "bin", "erl"]),
       ["-boot", clean, "-boot_var", "RELEASE_LIB", Path.join(root, "lib")]}
    end
  end

  defp ebins, do: for(app <- [:elixir, :emily], do: Path.join(:code.lib_dir(app), "ebin"))

  # The flags of this VM, a node's name for instance, must not reach the other, and no dump is wanted.
  defp environment do
    [{~c"ERL_CRASH_DUMP_BYTES", ~c"0"}] ++
      for name <- [~c"ERL_FLAGS", ~c"ERL_AFLAGS", ~c"ERL_ZFLAGS"], do: {name, false}
  end

  defp collect(port, pid, output, stop_at) do
    receive do
      {^port, {:data, data}} -> collect(port, pid, [output | data], stop_at)
      {^port, {:exit_status, status}} -> result(IO.iodata_to_binary(output), status)
    after
      max(stop_at - System.monotonic_time(:millisecond), 0) ->
        System.cmd("kill", ["-9", to_string(pid)], stderr_to_stdout: true)
        gone(port)
        {:error, :time}
    end
  end

  # A process that waits for a broken driver cannot be killed: it is left alone.
  defp gone(port) do
    receive do
      {^port, {:exit_status, _}} -> :ok
    after
      2000 -> :ok
    end
  end

  defp result(output, status) do
    case Regex.run(~r/#{@marker}(\S+)/, output) do
      [_, text] -> text |> Base.decode64!() |> :erlang.binary_to_term()
      nil when status > 128 -> {:error, {:signal, status - 128}}
      nil -> {:error, {:run, "exit status #{status}: #{String.slice(output, -500, 500)}"}}
    end
  end

  @doc "What the new VM runs."
  @spec main() :: no_return()
  def main do
    text = measured() |> :erlang.term_to_binary() |> Base.encode64()
    IO.puts([@marker, text])
    System.halt(0)
  end

  @doc "Loads the NIF and runs the kernels on every device in this VM."
  @spec measured() :: result
  def measured do
    case load() do
      :ok ->
        {:ok, %{version: Native.mlx_version(), devices: Enum.map(Native.devices(), &device/1)}}

      {:error, reason} ->
        {:error, {:load, reason}}
    end
  rescue
    error -> {:error, {:run, Exception.message(error)}}
  end

  # Why a NIF cannot be loaded is told to the log alone.
  defp load do
    me = self()
    :ok = :logger.add_primary_filter(__MODULE__, {&tell/2, me})

    case :code.ensure_loaded(Native.Nif) do
      {:module, _} -> :ok
      {:error, reason} -> {:error, told(reason)}
    end
  after
    :logger.remove_primary_filter(__MODULE__)
  end

  defp tell(%{msg: {:report, %{args: arguments}}} = event, pid) do
    for {:error, {_reason, text}} <- arguments, do: send(pid, {__MODULE__, text})
    event
  end

  defp tell(event, _pid), do: event

  defp told(reason) do
    receive do
      {__MODULE__, text} -> to_string(text)
    after
      2000 -> inspect(reason)
    end
  end

  # Rows of the product are 8 different ones, so that its exact value is cheap to write down: each entry is
  # size * (1 + rem(row, 8)) * (1 + rem(column, 8)), small enough to be exact in f32 and TF32.
  defp device(device) do
    size = if device == :cpu, do: 1024, else: 4096
    ramp = for _ <- 1..div(size, 8), x <- 1..8, into: <<>>, do: <<x::float-32-native>>
    row = Native.from_binary(ramp, [1, size], :f32, device)
    column = Native.from_binary(ramp, [size, 1], :f32, device)

    operands =
      Native.run(
        for(x <- [column, row], do: {:contiguous, {:broadcast_to, x, [size, size]}}),
        device
      )

    Native.eval(operands)
    [a, b] = operands
    [{_, product} | _] = runs = for _ <- 1..5, do: timed(fn -> product(a, b, device) end)
    seconds = runs |> Enum.map(&elem(&1, 0)) |> Enum.min()

    %{
      device: device,
      size: size,
      gflops: 2 * size ** 3 / seconds / 1.0e9,
      product?: Native.to_binary(product) == expected_product(size),
      norm: norm(device)
    }
  end

  defp product(a, b, device) do
    [product] = Native.run([{:matmul, a, b}], device)
    Native.eval(product)
    product
  end

  defp timed(fun) do
    {micros, result} = :timer.tc(fun)
    {max(micros, 1) / 1.0e6, result}
  end

  defp expected_product(size) do
    rows =
      for r <- 1..8, into: <<>> do
        one = for c <- 1..8, into: <<>>, do: <<size * r * c::float-32-native>>
        :binary.copy(one, div(size, 8))
      end

    :binary.copy(rows, div(size, 8))
  end

  # Of 3 and 4 the mean square is 12.5, so the first is 3 / sqrt(12.5).
  defp norm(device) do
    x = Native.from_binary(<<3.0::float-32-native, 4.0::float-32-native>>, [1, 2], :f32, device)
    <<first::float-32-native, _::binary>> = Native.to_binary(Native.rms_norm(x, nil, 0.0, device))
    first
  end
end
