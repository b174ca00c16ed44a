defmodule Mix.Tasks.Emily.Doctor do
  @shortdoc "Checks this machine for Emily and says what to mend"
  @moduledoc """
  Checks this machine for Emily and says what to mend.

      mix emily.doctor

  Works in every project that depends on Emily. Looks at the MLX that was built and its BLAS, glibc,
  the processor, memory, GPU driver and CUDA libraries, and the versions of the packages; then runs a
  matrix product and a fused norm on each device and compares them with numbers worked out by hand.

  Each check is one line that begins with `ok`, `warning` or `FAILED`; the remedy stands below it. The
  exit status is 1 if something FAILED, else 0. There are no options. In a release, `Emily.Doctor.report/1` does the
  same.
  """

  use Mix.Task

  alias Emily.Doctor

  @impl true
  def run([]) do
    # What the checks need is on the path without compiling the project, which may not compile.
    Mix.Task.run("loadpaths", ["--no-deps-check"])
    if Doctor.report() == :error, do: exit({:shutdown, 1})
  end

  def run(arguments) do
    Mix.raise("mix emily.doctor takes no arguments, got: #{Enum.join(arguments, " ")}")
  end
end
