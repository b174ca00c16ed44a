# The suite on the machine's default device, without Mix: `elixir bench/gpu/tests.exs [FILE...]`.
# What needs the sources of the native part or another VM of Mix's is left out.

Application.put_all_env(Config.Reader.read!("config/config.exs", env: :test))
# Tests compare with f32's digits.
Application.put_env(:emily, :matmul_precision, :f32)
{:ok, _} = Application.ensure_all_started(:emily)
Logger.configure(level: :info)
for app <- [:stream_data, :bumblebee], do: Application.ensure_all_started(app)

defmodule Slowest do
  # One line for each file that failed, and for what took long or still runs.
  use GenServer

  @minute 60_000

  def init(_options) do
    :timer.send_interval(@minute, :running)
    {:ok, %{failed: %{}, slow: [], running: %{}}}
  end

  def handle_info(:running, state) do
    for {{module, name}, since} <- state.running,
        seconds = System.monotonic_time(:second) - since,
        seconds >= div(@minute, 1000),
        do: IO.puts("still runs after #{seconds} s: #{inspect(module)} #{name}")

    {:noreply, state}
  end

  def handle_cast({:test_started, test}, state) do
    now = System.monotonic_time(:second)
    {:noreply, put_in(state.running[{test.module, test.name}], now)}
  end

  def handle_cast({:test_finished, test}, state) do
    {_since, state} = pop_in(state.running[{test.module, test.name}])
    {:noreply, finished(test, state)}
  end

  def handle_cast({:suite_finished, _times}, state) do
    IO.puts("\nfailures by module:")

    for {module, count} <- Enum.sort_by(state.failed, &elem(&1, 1), :desc),
        do: IO.puts("  #{count} #{inspect(module)}")

    IO.puts("slow:")

    for {seconds, module, name} <- Enum.sort(state.slow, :desc),
        do: IO.puts("  #{seconds} s #{inspect(module)} #{name}")

    {:noreply, state}
  end

  def handle_cast(_event, state), do: {:noreply, state}

  defp finished(%{state: {:failed, _}} = test, state),
    do: update_in(state.failed, &Map.update(&1, test.module, 1, fn n -> n + 1 end))

  defp finished(%{time: time} = test, state) when time > 5_000_000,
    do: update_in(state.slow, &[{div(time, 1_000_000), test.module, test.name} | &1])

  defp finished(_test, state), do: state
end

IO.puts("devices: #{inspect(Emily.Native.devices())}, MLX #{Emily.Native.mlx_version()}")

Application.load(:ex_unit)
Application.put_env(:ex_unit, :autorun, false)
Code.require_file("test/test_helper.exs")
ExUnit.configure(timeout: 300_000, formatters: [ExUnit.CLIFormatter, Slowest])

files =
  case System.argv() do
    [] ->
      # These want Mix, the files of models, or a limit of the host's memory.
      left_out =
        ~w(native/doctor native/exhaustion native/minilm emily/blocks emily/package emily/readme emily/bumblebee) ++
          ~w(emily/gguf/bumblebee emily/safetensors)

      Path.wildcard("test/{emily,native}/**/*_test.exs") --
        Enum.map(left_out, &"test/#{&1}_test.exs")

    files ->
      files
  end

load = fn file ->
  try do
    Code.require_file(file)
    nil
  rescue
    error -> "#{file} cannot be loaded: #{Exception.message(error)}"
  end
end

unloaded =
  for {:ok, message} when message != nil <- Task.async_stream(files, load, timeout: :infinity),
      do: message

%{failures: failures} = ExUnit.run()
for message <- unloaded, do: IO.puts(message)
System.halt(min(failures + length(unloaded), 1))
