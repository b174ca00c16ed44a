defmodule Emily.Doctor do
  @moduledoc """
  Looks at a machine and says what keeps Emily from running well on it, and the remedy.

  `mix emily.doctor` prints what `examine/0` finds. It is made for machines where something is broken:
  what is missing becomes a line, never an exception, and MLX runs in a VM of its own, which may die.
  The guide [When something is wrong](troubleshooting.md) has all remedies.

  A release has it too, without Mix: `bin/my_app eval "Emily.Doctor.report()"`.
  """

  alias Emily.Doctor.{Checks, Findings}

  @typedoc """
  One line of the report: `:failed` keeps Emily from working, `:warning` makes it slow or wrong for
  this machine. `remedy` is `nil` where `status` is `:ok`.
  """
  @type check :: %{
          name: String.t(),
          status: :ok | :warning | :failed,
          found: String.t(),
          remedy: String.t() | nil
        }

  @doc """
  Looks at this machine and runs the kernels; takes a few seconds. In a release, what only a build needs is not
  looked for.

      iex> checks = Emily.Doctor.examine()
      iex> Enum.find(checks, &(&1.name == "kernels")).status
      :ok
  """
  @spec examine() :: [check]
  def examine, do: Checks.run(Findings.gather())

  @doc """
  Prints checks, by default those of `examine/0`, and how many ask for something. Returns `:ok`, or `:error` if one
  failed.

      iex> ExUnit.CaptureIO.capture_io(fn ->
      ...>   :error = Emily.Doctor.report([%{name: "BLAS", status: :failed, found: "none", remedy: "Build."}])
      ...> end)
      "FAILED   BLAS               none\\n         -> Build.\\n\\n1 checks: 0 warnings, 1 FAILED\\n"
  """
  @spec report([check]) :: :ok | :error
  def report(checks \\ examine()) do
    for check <- checks, do: IO.puts(format(check))

    counts = Enum.frequencies_by(checks, & &1.status)
    {warnings, failed} = {counts[:warning] || 0, counts[:failed] || 0}
    IO.puts("\n#{length(checks)} checks: #{warnings} warnings, #{failed} FAILED")
    if failed > 0, do: :error, else: :ok
  end

  @doc """
  A check in words: its line, and its remedy below it.

      iex> check = %{name: "BLAS", status: :warning, found: "the slow one", remedy: "Install OpenBLAS."}
      iex> Emily.Doctor.format(check)
      "warning  BLAS               the slow one\\n         -> Install OpenBLAS."
  """
  @spec format(check) :: String.t()
  def format(check) do
    line = [pad(label(check.status), 9), pad(check.name, 19), check.found]

    remedy =
      if check.remedy,
        do: ["\n         -> ", String.replace(check.remedy, "\n", "\n            ")]

    IO.iodata_to_binary([line, remedy || []])
  end

  defp label(:ok), do: "ok"
  defp label(:warning), do: "warning"
  defp label(:failed), do: "FAILED"

  defp pad(text, width), do: String.pad_trailing(text, width)
end
