defmodule Attack.Child do
  @moduledoc false
  # Another VM with this one's modules, and how it ends.

  @doc """
  Starts `elixir` with this VM's code and `arguments`; the caller gets what it prints. `environment` is a list of pairs of
  strings.
  """
  def open(arguments, environment \\ []) do
    # A dump of a VM that was ended on purpose is worth nothing, and takes long.
    environment = [{"ERL_CRASH_DUMP_SECONDS", "0"} | environment]

    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 100_000,
        args: code_paths() ++ arguments,
        env: for({name, value} <- environment, do: {to_charlist(name), to_charlist(value)})
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    %{port: port, pid: pid}
  end

  @doc """
  Hands each line to `fun` until the child ends or `seconds` have passed: `{:exit, status}`, `{:signal, number}`, or
  `:late`, which the child does not survive.
  """
  def follow(child, seconds, fun),
    do: follow_until(child, System.monotonic_time(:millisecond) + 1000 * seconds, fun)

  defp follow_until(%{port: port} = child, deadline, fun) do
    receive do
      {^port, {:data, {_, line}}} ->
        fun.(line)
        follow_until(child, deadline, fun)

      {^port, {:exit_status, status}} ->
        ending(status)
    after
      max(0, deadline - System.monotonic_time(:millisecond)) ->
        kill(child)
        :late
    end
  end

  @doc "What an exit status says."
  def ending(status) when status > 128, do: {:signal, status - 128}
  def ending(status), do: {:exit, status}

  @doc "Ends the child with SIGKILL, and waits until it is gone."
  def kill(%{port: port, pid: pid}) do
    System.cmd("kill", ["-9", "#{pid}"], stderr_to_stdout: true)

    receive do
      {^port, {:exit_status, _}} -> :ok
    after
      30_000 -> raise "process #{pid} does not die of SIGKILL"
    end
  end

  @doc "The resident memory of a process in bytes, 0 where it is gone."
  def resident(pid) do
    with {:ok, text} <- File.read("/proc/#{pid}/status"),
         [_, kilobytes] <- Regex.run(~r/VmRSS:\s+(\d+)/, text),
         do: 1024 * String.to_integer(kilobytes),
         else: (_ -> 0)
  end

  # The working folder is left out: as a folder of code it would be the application of its name.
  defp code_paths, do: Enum.flat_map(:code.get_path() -- [~c"."], &["-pa", to_string(&1)])
end
