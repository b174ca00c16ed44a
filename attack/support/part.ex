defmodule Attack.Part do
  @moduledoc false
  # A part of the attack: a script that runs its cases and hands its answer to the runner.

  @doc """
  Runs a part with what the runner, or whoever starts the script, gives it: `--seed`, `--seconds`, `--folder`.

  `fun` answers `%{cases: integer, faults: [text]}`.
  """
  def main(name, fun) do
    {opts, _, _} =
      OptionParser.parse(System.argv(),
        strict: [seed: :integer, seconds: :integer, folder: :string]
      )

    folder =
      opts[:folder] || Path.join(System.tmp_dir!(), "emily-attack-#{name}-#{System.pid()}")

    File.mkdir_p!(folder)
    options = %{seed: opts[:seed] || 1, seconds: opts[:seconds] || 60, folder: folder}
    %{cases: cases, faults: faults} = answer = fun.(options)
    for fault <- faults, do: IO.puts("FAULT in #{name}: #{fault}\n")
    IO.puts("#{name}: #{cases} cases, #{length(faults)} faults")
    File.write!(result(folder), :erlang.term_to_binary(answer))
    System.halt(if faults == [], do: 0, else: 1)
  end

  @doc "Where a part's answer lies in its folder."
  def result(folder), do: Path.join(folder, "result")
end
