defmodule Emily.Build.Command do
  @moduledoc false
  # Runs a program and shows that it lives: its output as it comes, or a line now and then.

  @silence 20_000

  @doc """
  Runs `program` and returns `{output, exit_status}`; `{message, :missing}` if there is no such program.

  Options: `:cd`, `:env` (list of pairs), `:show` (`true` prints the output as it comes, default `false`).
  """
  def run(program, arguments, options \\ []) do
    options = Keyword.validate!(options, cd: File.cwd!(), env: [], show: false)

    case System.find_executable(program) do
      nil ->
        {"there is no program named #{program} in PATH", :missing}

      path ->
        {:spawn_executable, path} |> open(arguments, options) |> collect(options[:show], [], 0)
    end
  end

  @doc "The output of a program that succeeds, trimmed, or `nil`."
  def output(program, arguments) do
    case run(program, arguments) do
      {output, 0} -> String.trim(output)
      _ -> nil
    end
  end

  defp open(spawn, arguments, options) do
    env = for {name, value} <- options[:env], do: {to_charlist(name), to_charlist(value)}

    Port.open(spawn, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      :hide,
      :use_stdio,
      args: arguments,
      cd: options[:cd],
      env: env
    ])
  end

  defp collect(port, show, output, silent_for) do
    receive do
      {^port, {:data, data}} ->
        if show, do: IO.write(data)
        collect(port, show, [output | data], 0)

      {^port, {:exit_status, status}} ->
        {output |> IO.iodata_to_binary() |> String.replace_invalid(), status}
    after
      @silence ->
        silent_for = silent_for + div(@silence, 1000)
        Mix.shell().info("emily:   ... still at work (#{silent_for} s)")
        collect(port, show, output, silent_for)
    end
  end
end
