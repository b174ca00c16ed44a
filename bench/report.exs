defmodule Bench.Report do
  @moduledoc false
  # The tables, and the file that keeps them.

  alias Bench.Timing

  @tick_goal 10_000_000

  @doc "The tables in Markdown."
  def new(figures, measured, ticks, facts, device, rounds) do
    {goals, details} = Enum.split_with(figures, & &1[:goal])

    Enum.join(
      [machine(facts, device, rounds) <> " In microseconds."] ++
        if(goals == [], do: [], else: [goal_table(goals, measured)]) ++
        if(ticks, do: [tick_table(ticks)], else: []) ++
        if(details == [], do: [], else: [detail_table(details, measured)]),
      "\n\n"
    )
  end

  @doc """
  Puts what `command` reports into a file, in the place of what it wrote there before or at the end.
  What stands around it stays.
  """
  def write(report, command, path) do
    [start, finish] = [
      "<!-- Written by #{command} -->",
      "<!-- The end of what #{command} writes -->"
    ]

    block = Enum.join([start, report, finish], "\n\n")

    text =
      case File.read(path) do
        {:ok, text} -> text
        _ -> "# Measured\n\n`bench/run` measures; `bench/run --write` keeps it here.\n"
      end

    text =
      with [before, rest] <- String.split(text, start, parts: 2),
           [_old, behind] <- String.split(rest, finish, parts: 2) do
        before <> block <> behind
      else
        _ -> "#{text}\n#{block}\n"
      end

    File.write!(path, text)
    IO.puts("written to #{Path.relative_to_cwd(path)}")
  end

  @doc "Date, machine, versions."
  def machine(facts, device, rounds) do
    %{emily: emily, nx: nx} = Map.new([:emily, :nx], &{&1, Application.spec(&1, :vsn)})

    same =
      if facts.shared,
        do: "Both sides load the same files of MLX and BLAS.",
        else: "Each side has its own MLX."

    """
    #{Date.utc_today()}, #{processor()}, #{System.schedulers_online()} cores, on the #{device}.
    Emily #{emily}, Nx #{nx}, Elixir #{System.version()}, OTP #{System.otp_release()}; Python #{facts.python}, mlx #{facts.mlx}. #{same}
    Medians of #{rounds} rounds, in which Emily and Python take turns; each round a median too.\
    """
  end

  @doc "The name of the processor."
  def processor do
    with {:ok, text} <- File.read("/proc/cpuinfo"),
         [_, name] <- Regex.run(~r/^model name\s*:\s*(.*)$/m, text) do
      detail =
        for key <- ["cpu family", "model"],
            [_, value] <- [Regex.run(~r/^#{key}\s*:\s*(\d+)$/m, text)],
            do: "#{key} #{value}"

      Enum.join([name | detail], ", ")
    else
      _ -> to_string(:erlang.system_info(:system_architecture))
    end
  end

  defp goal_table(figures, measured) do
    rows =
      for figure <- figures do
        {emily, python} = times(figure, measured)
        {words, most} = figure.goal
        limit = most.(python)

        goal = if words =~ "x", do: "#{words} = #{us(limit)}", else: words

        row([
          figure.label,
          us(emily),
          us(python),
          ratio(emily, python),
          goal,
          met(emily <= limit)
        ])
      end

    table(["figure", "Emily", "Python's mlx", "ratio", "goal", "met"], rows)
  end

  defp detail_table(figures, measured) do
    rows =
      for figure <- figures do
        {emily, python} = times(figure, measured)
        row([figure.label, us(emily), us(python), ratio(emily, python)])
      end

    "Where the time goes:\n\n" <> table(["figure", "Emily", "Python's mlx", "ratio"], rows)
  end

  defp tick_table(ticks) do
    rows =
      for {label, delays, goal?} <- [
            {"nothing else running", ticks.idle, false},
            {"ten processes evaluating (#{ticks.evaluations} evaluations)", ticks.busy, true}
          ] do
        [p50, p99, worst] = for share <- [0.5, 0.99, 1.0], do: Timing.quantile(delays, share)
        goal = if goal?, do: ["p99 ≤ 10 ms", met(p99 <= @tick_goal)], else: ["", ""]
        row([label, us(p50), us(p99), us(worst) | goal])
      end

    "How late a process is that wakes every millisecond, of #{length(ticks.busy)} ticks each " <>
      "(the BEAM's timers themselves are up to a millisecond late):\n\n" <>
      table(["meanwhile", "p50", "p99", "worst", "goal", "met"], rows)
  end

  defp times(figure, measured) do
    [emily, python] =
      for side <- [:emily, :python] do
        case measured[{side, figure.key}] do
          nil -> nil
          times -> Timing.middle(times)
        end
      end

    {emily, python}
  end

  def us(nil), do: ""
  def us(time) when time < 100_000, do: :erlang.float_to_binary(time / 1000, decimals: 2)
  def us(time), do: "#{round(time / 1000)}"

  def ratio(_emily, nil), do: ""
  def ratio(emily, python), do: :erlang.float_to_binary(emily / python, decimals: 2)

  def met(true), do: "yes"
  def met(false), do: "NO"

  def table(heads, rows) do
    Enum.join([row(heads), row(Enum.map(heads, fn _ -> "---" end)) | rows], "\n")
  end

  def row(cells), do: "| #{Enum.join(cells, " | ")} |"
end
