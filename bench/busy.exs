defmodule Bench.Busy do
  @moduledoc false
  # Other programs on the same cores.

  @doc "What `fun` gives while `count` shells count without end."
  def beside(count, fun) do
    shell = System.find_executable("sh")

    ports =
      for _ <- 1..count do
        Port.open({:spawn_executable, shell}, [
          :binary,
          args: ["-c", "while :; do i=$((i+1)); done"]
        ])
      end

    try do
      fun.()
    after
      for port <- ports, {:os_pid, pid} <- [Port.info(port, :os_pid)] do
        # A port of a program that has ended is closed already.
        Port.close(port)
        System.cmd("kill", ["-9", "#{pid}"])
      end
    end
  end
end
