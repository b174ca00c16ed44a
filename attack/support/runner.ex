defmodule Attack.Runner do
  @moduledoc false
  # Runs the parts one after the other, each with a share of the time, and prints one table.

  alias Attack.{Child, Part}

  # How much longer than its share a part may take to start, to stop and to tell.
  @grace 600

  @doc "Runs what the arguments of `bin/attack` ask for, and halts."
  def main(arguments) do
    {opts, rest, wrong} =
      OptionParser.parse(arguments, strict: [minutes: :float, seed: :integer, only: :keep])

    if rest != [] or wrong != [], do: stop("bin/attack takes --minutes, --seed and --only")
    parts = parts(Keyword.get_values(opts, :only))
    seed = opts[:seed] || :rand.uniform(1_000_000)
    seconds = max(1, round(60 * (opts[:minutes] || 10.0) / length(parts)))
    IO.puts("seed #{seed}, #{seconds} s for each of: #{Enum.join(parts, ", ")}")
    rows = for part <- parts, do: run(part, seed, seconds)
    table(rows, seed)
    System.halt(if Enum.any?(rows, &(&1.faults > 0)), do: 1, else: 0)
  end

  defp parts(only) do
    all = "attack/*.exs" |> Path.wildcard() |> Enum.map(&Path.basename(&1, ".exs"))
    if only -- all != [], do: stop("there are the parts #{Enum.join(all, ", ")}")
    if only == [], do: all, else: only
  end

  defp stop(text) do
    IO.puts(:stderr, text)
    System.halt(2)
  end

  defp run(part, seed, seconds) do
    IO.puts("\n=== #{part}")
    folder = Path.join(System.tmp_dir!(), "emily-attack-#{System.pid()}-#{part}")
    File.mkdir_p!(folder)
    start = System.monotonic_time(:second)

    arguments =
      ["attack/#{part}.exs", "--seed", "#{seed}", "--seconds", "#{seconds}", "--folder", folder]

    ending = arguments |> Child.open() |> Child.follow(seconds + @grace, &IO.puts/1)
    took = System.monotonic_time(:second) - start
    row = folder |> answer(part, ending) |> Map.merge(%{part: part, seconds: took})
    File.rm_rf!(folder)
    row
  end

  defp answer(folder, part, ending) do
    case {File.read(Part.result(folder)), ending} do
      {{:ok, binary}, {:exit, status}} when status in [0, 1] ->
        %{cases: cases, faults: faults} = :erlang.binary_to_term(binary)
        %{cases: cases, faults: length(faults)}

      _ ->
        IO.puts("FAULT: the part #{part} itself ended with #{inspect(ending)}")
        %{cases: 0, faults: 1}
    end
  end

  defp table(rows, seed) do
    rows = for row <- rows, do: [row.part, row.cases, row.faults, seed, row.seconds]
    rows = for row <- [~w(part cases faults seed seconds) | rows], do: Enum.map(row, &to_string/1)

    widths =
      rows |> Enum.zip_with(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    IO.puts("")

    for row <- rows do
      row |> Enum.zip_with(widths, &String.pad_leading/2) |> Enum.join("  ") |> IO.puts()
    end
  end
end
