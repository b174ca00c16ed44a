defmodule Mix.Tasks.Emily.Doctor do
  @shortdoc "Checks this machine for Emily and says what to mend"
  @moduledoc """
  Checks this machine for Emily and says what to mend.

      mix emily.doctor

  Works in every project that depends on Emily. Looks at the MLX that was built and its BLAS, glibc,
  the processor, memory, GPU driver and CUDA libraries, and the versions of the packages; then runs a
  matrix product and a fused norm on each device and compares them with numbers worked out by hand.

  Each check is one line that begins with `ok`, `warning` or `FAILED`; the remedy stands below it. The
  exit status is 1 if something FAILED, else 0. There are no options.
  """

  use Mix.Task

  alias Emily.Doctor

  @impl true
  def run([]) do
    # What the checks need is on the path without compiling the project, which may not compile.
    Mix.Task.run("loadpaths", ["--no-deps-check"])
    report(Doctor.examine())
  end

  def run(arguments) do
    Mix.raise("mix emily.doctor takes no arguments, got: #{Enum.join(arguments, " ")}")
  end

  @doc false
  def report(checks) do
    for check <- checks, do: Mix.shell().info(Doctor.format(check))

    counts = Enum.frequencies_by(checks, & &1.status)
    {warnings, failed} = {counts[:warning] || 0, counts[:failed] || 0}
    Mix.shell().info("\n#{length(checks)} checks: #{warnings} warnings, #{failed} FAILED")
    if failed > 0, do: exit({:shutdown, 1})
  end
end
