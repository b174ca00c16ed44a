defmodule Emily.Build.Lock do
  @moduledoc false
  # A lock of the operating system's on a file (flock). A small program holds it for as long as its input is open:
  # however this VM ends, the kernel closes that, the program ends, and the lock is free.

  alias Emily.Build.Failure

  @python "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); " <>
            "print('held', flush=True); sys.stdin.read()"
  @perl "open(my $f, '>>', $ARGV[0]) or die $!; flock($f, 2) or die $!; $| = 1; print 'held'; <STDIN>"

  # They exclude each other, and each machine has one: Linux the first, macOS the others.
  @holders [
    {"flock", ["FILE", "/bin/sh", "-c", "echo held; read end"]},
    {"python3", ["-c", @python, "FILE"]},
    {"perl", ["-e", @perl, "FILE"]}
  ]

  # After so long a wait is told.
  @silence 1000

  @doc "The programs that can hold a lock; the first that is there does."
  def programs, do: for({program, _} <- @holders, do: program)

  @doc "Runs `fun` while no other process, of this VM or of another, holds the lock on `file`."
  def hold(file, fun, programs \\ programs()) do
    port = open(file, programs)

    try do
      wait(port, file, @silence, "")
      fun.()
    after
      # It is closed already where the program has ended.
      if Port.info(port), do: Port.close(port)
    end
  end

  defp open(file, programs) do
    {path, arguments} =
      Enum.find_value(@holders, fn {program, arguments} ->
        path = program in programs && System.find_executable(program)
        if path, do: {path, arguments}
      end) ||
        Failure.stop(
          "nothing here can lock a file.",
          "Install one of #{Enum.join(programs, ", ")}."
        )

    Port.open({:spawn_executable, path}, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      args: Enum.map(arguments, &if(&1 == "FILE", do: file, else: &1))
    ])
  end

  defp wait(port, file, patience, said) do
    receive do
      {^port, {:data, "held" <> _}} ->
        :ok

      {^port, {:data, text}} ->
        wait(port, file, patience, said <> text)

      {^port, {:exit_status, status}} ->
        said = if said == "", do: "exit status #{status}", else: String.trim(said)
        Failure.stop("could not lock #{file}: #{said}.", "Look at that path.")
    after
      patience ->
        Mix.shell().info("emily: waiting for another build of Emily, which holds #{file}")
        wait(port, file, :infinity, said)
    end
  end
end
