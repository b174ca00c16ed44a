defmodule Emily.Conformance.Report do
  @moduledoc false
  # The table of how much of Nx's own tests runs, in guides/conformance.md.

  alias Emily.Conformance.Exclusions

  @guide Path.expand("../guides/conformance.md", __DIR__)
  @first "<!-- Written by mix test.nx --write -->\n"
  @last "<!-- The end of what mix test.nx writes -->\n"

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

  @doc "Writes the table into the guide."
  def write(modules, excluded, near) do
    [before, _, rest] = parts()
    File.write!(@guide, before <> @first <> table(modules, excluded, near) <> @last <> rest)
  end

  @doc "Whether the guide holds the table."
  def written?(modules, excluded, near), do: Enum.at(parts(), 1) == table(modules, excluded, near)

  defp parts do
    [before, rest] = String.split(File.read!(@guide), @first)
    [table, rest] = String.split(rest, @last)
    [before, table, rest]
  end

  defp table(modules, excluded, near) do
    names = for {reason, _} <- Exclusions.reasons(), do: reason
    heads = ["", "tests", "run", "to the last digit" | Enum.map(names, &to_string/1)]

    rows =
      for module <- modules,
          module.__ex_unit__().tests != [],
          do: row(module, excluded, near, names)

    "\n" <>
      Enum.map_join([heads, Enum.map(heads, fn _ -> "---" end) | rows], "\n", &line/1) <>
      "\n\n" <>
      Enum.map_join(Exclusions.reasons(), "\n", fn {name, text} -> "- #{name}: #{text}" end) <>
      "\n\n"
  end

  defp row(module, excluded, near, names) do
    tests = module.__ex_unit__().tests
    excluded = for {%{module: ^module}, reason} <- excluded, do: reason
    near = for {%{module: ^module}, _type, reason} <- near, do: reason
    counts = for name <- names, do: Enum.count(excluded ++ near, &(&1 == name))
    run = length(tests) - length(excluded)
    [title(module, tests), length(tests), run, length(near) | counts]
  end

  defp title(_module, [%{tags: %{test_type: :doctest, doctest: doctested}} | _]),
    do: "doctests of `#{inspect(doctested)}`"

  defp title(module, _tests), do: "`#{inspect(module)}`"

  defp line(cells), do: "| " <> Enum.map_join(cells, " | ", &cell/1) <> " |"
  defp cell(0), do: ""
  defp cell(other), do: to_string(other)
end
