defmodule Emily.Conformance.Report do
  @moduledoc false
  # The tables of how much of a library's own tests runs, in guides/conformance.md. A task writes its own table.

  @guide Path.expand("../guides/conformance.md", __DIR__)
  defp first(task), do: "<!-- Written by mix #{task} --write -->\n"
  defp last(task), do: "<!-- The end of what mix #{task} writes -->\n"

  @doc "From here on `peak_memory/0` counts anew."
  def forget_peak_memory, do: File.write("/proc/self/clear_refs", "5")

  @doc "The most memory that the process has had, where Linux tells it."
  def peak_memory do
    with {:ok, status} <- File.read("/proc/self/status"),
         [_, kilobytes] <- Regex.run(~r/^VmHWM:\s*(\d+) kB$/m, status) do
      ", #{div(String.to_integer(kilobytes), 1024)} MiB of memory at most"
    else
      _ -> ""
    end
  end

  @doc "Writes a table into the guide."
  def write(task, table) do
    [before, _, rest] = parts(task)
    File.write!(@guide, before <> first(task) <> table <> last(task) <> rest)
  end

  @doc "Whether the guide holds the table."
  def written?(task, table), do: Enum.at(parts(task), 1) == table

  defp parts(task) do
    [before, rest] = String.split(File.read!(@guide), first(task))
    [table, rest] = String.split(rest, last(task))
    [before, table, rest]
  end

  @doc """
  The table of modules, with the tests that are left out and those that hold to the last digit, and the reasons. Without
  the latter it has no column of them.
  """
  def table(modules, excluded, near, reasons) do
    names = for {reason, _} <- reasons, do: reason
    to_last = if near, do: ["to the last digit"], else: []
    heads = ["", "tests", "run"] ++ to_last ++ Enum.map(names, &to_string/1)

    rows =
      for module <- modules,
          module.__ex_unit__().tests != [],
          do: row(module, excluded, near, names)

    "\n" <>
      Enum.map_join([heads, Enum.map(heads, fn _ -> "---" end) | rows], "\n", &line/1) <>
      "\n\n" <>
      Enum.map_join(reasons, "\n", fn {name, text} -> "- #{name}: #{text}" end) <>
      "\n\n"
  end

  defp row(module, excluded, near, names) do
    tests = module.__ex_unit__().tests
    excluded = for {%{module: ^module}, reason} <- excluded, do: reason
    digits = for {%{module: ^module}, _type, reason} <- near || [], do: reason
    counts = for name <- names, do: Enum.count(excluded ++ digits, &(&1 == name))
    to_last = if near, do: [length(digits)], else: []
    [title(module, tests), length(tests), length(tests) - length(excluded)] ++ to_last ++ counts
  end

  defp title(module, [%{tags: tags} | _] = tests) do
    if Enum.all?(tests, &(&1.tags[:test_type] == :doctest)),
      do: "doctests of `#{inspect(tags.doctest)}`",
      else: "`#{inspect(module)}`"
  end

  defp line(cells), do: "| " <> Enum.map_join(cells, " | ", &cell/1) <> " |"
  defp cell(0), do: ""
  defp cell(other), do: to_string(other)
end
