defmodule Demo do
  @moduledoc """
  What the examples share: arguments, models, progress, timing, the report.
  """

  @sentences [
    "A man is eating food.",
    "Someone is having a meal.",
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "How do I embed sentences in Elixir?"
  ]

  @text_width 42

  @doc """
  The device and the sentences that the command line names.

  Without `--device cpu|gpu` it is MLX's default, without sentences a set of six.
  """
  def arguments!(argv) do
    {options, sentences} =
      try do
        OptionParser.parse!(argv, strict: [device: :string])
      rescue
        error in OptionParser.ParseError -> stop(Exception.message(error))
      end

    if bad = Enum.find(sentences, &(not String.valid?(&1))) do
      stop("a sentence is not valid UTF-8: #{inspect(bad)}")
    end

    sentences = if sentences == [], do: @sentences, else: sentences
    {device!(options[:device]), sentences}
  end

  @doc """
  The device of that name; MLX's default for `nil`.
  """
  def device!(nil), do: Emily.Native.default_device()

  def device!(name) do
    devices = Emily.Native.devices()

    Enum.find(devices, &(Atom.to_string(&1) == name)) ||
      stop("no device #{inspect(name)} here; there is #{Enum.join(devices, ", ")}")
  end

  @doc """
  The folder of MiniLM's files: `EMILY_MODEL`, or under Mix where `mix emily.model` puts it.
  """
  def model_dir! do
    dir = System.get_env("EMILY_MODEL") || fetched("minilm")

    if dir && File.regular?(Path.join(dir, "model.safetensors")) do
      dir
    else
      stop("EMILY_MODEL names no folder with a model.safetensors")
    end
  end

  @doc """
  The GGUF file of SmolLM2-135M-Instruct: `EMILY_SMOLLM2`, or under Mix in the folder where
  `mix emily.model` puts it.
  """
  def smollm2! do
    path =
      System.get_env("EMILY_SMOLLM2") ||
        Path.join(fetched("smollm2") || "", "SmolLM2-135M-Instruct.Q4_1.gguf")

    if File.regular?(path) do
      path
    else
      stop("EMILY_SMOLLM2 names no GGUF file")
    end
  end

  defp fetched(name) do
    task = Mix.Tasks.Emily.Model
    if Code.ensure_loaded?(task), do: task.folder(name)
  end

  @doc """
  Runs `fun`, says what it is and how long it took, and returns its result.
  """
  def step(what, fun) do
    IO.write(String.pad_trailing("#{what} ...", 40))
    {micros, result} = :timer.tc(fun)
    IO.puts("#{:erlang.float_to_binary(micros / 1.0e6, decimals: 2)} s")
    result
  end

  @doc """
  The median time in seconds of one call of `fun`, with the number of calls timed.

  The first call, untimed, warms up. At least five calls follow, then more for
  about two seconds, up to a hundred.
  """
  def time(fun) do
    fun.()
    stop_at = System.monotonic_time(:millisecond) + 2000

    micros =
      1..100
      |> Enum.reduce_while([], fn run, times ->
        {micros, _} = :timer.tc(fun)
        late = run >= 5 and System.monotonic_time(:millisecond) > stop_at
        {if(late, do: :halt, else: :cont), [micros | times]}
      end)
      |> Enum.sort()

    {Enum.at(micros, div(length(micros), 2)) / 1.0e6, length(micros)}
  end

  @doc """
  Prints the similarities (a list of rows) and what else is known of the run.

  `left_mlx` maps each operation that was not computed by MLX to how often.
  """
  def report(title, sentences, similarities, {seconds, runs}, device, left_mlx) do
    IO.puts("\n#{title}\n")
    IO.puts(matrix(sentences, similarities))

    facts = [
      {"closest", closest(similarities)},
      {"sentences per second",
       "#{round(length(sentences) / seconds)} (median of #{runs} runs of #{length(sentences)})"},
      {"device", device_name(device)},
      {"MLX", Emily.Native.mlx_version()},
      {"operations that left MLX", left(left_mlx)}
    ]

    for {name, fact} <- facts, fact do
      IO.puts("#{String.pad_trailing(name, 26)}#{fact}")
    end

    :ok
  end

  @doc """
  The table of similarities as text, one numbered row for each sentence.
  """
  def matrix(sentences, similarities) do
    texts = Enum.map(sentences, &shorten/1)
    width = texts |> Enum.map(&width/1) |> Enum.max()
    count = length(sentences)
    digits = width(to_string(count))
    header = Enum.map(1..count, &String.pad_leading(to_string(&1), 7))

    rows =
      for {{text, row}, number} <- texts |> Enum.zip(similarities) |> Enum.with_index(1) do
        cells = Enum.map(row, &String.pad_leading(:erlang.float_to_binary(&1, decimals: 3), 7))

        [
          String.pad_leading(to_string(number), digits),
          "  ",
          text,
          String.duplicate(" ", width - width(text)),
          cells,
          "\n"
        ]
      end

    IO.iodata_to_binary([String.duplicate(" ", digits + 2 + width), header, "\n", rows])
  end

  defp closest(similarities) do
    pairs =
      for {row, i} <- Enum.with_index(similarities, 1),
          {value, j} <- Enum.with_index(row, 1),
          i < j,
          do: {value, i, j}

    with [_ | _] <- pairs do
      {value, i, j} = Enum.max(pairs)
      "#{i} and #{j} (#{:erlang.float_to_binary(value, decimals: 3)})"
    else
      [] -> nil
    end
  end

  defp left(counts) when counts == %{}, do: "0"

  defp left(counts) do
    names = counts |> Enum.sort() |> Enum.map_join(", ", fn {op, count} -> "#{op} #{count}" end)
    "#{counts |> Map.values() |> Enum.sum()} (#{names})"
  end

  defp device_name(device) do
    case Emily.Native.device_info(device) do
      %{"device_name" => name} -> "#{device} (#{name})"
      %{} -> to_string(device)
    end
  end

  # One line, at most @text_width columns of a terminal.
  defp shorten(text) do
    text = String.replace(text, ~r/[\s\p{Cc}]+/u, " ")

    if width(text) <= @text_width do
      text
    else
      kept =
        text
        |> String.graphemes()
        |> Enum.scan({"", 0}, fn char, {_, used} -> {char, used + width(char)} end)
        |> Enum.take_while(fn {_, used} -> used < @text_width end)
        |> Enum.map_join(fn {char, _} -> char end)

      kept <> "…"
    end
  end

  defp width(text), do: text |> String.graphemes() |> Enum.map(&columns/1) |> Enum.sum()

  # East Asian characters and emoji take two columns.
  defp columns(<<char::utf8, _::binary>>)
       when char in 0x1100..0x115F or char in 0x2E80..0xA4CF or char in 0xAC00..0xD7A3 or
              char in 0xF900..0xFAFF or char in 0xFE30..0xFE6F or char in 0xFF00..0xFF60 or
              char in 0xFFE0..0xFFE6 or char in 0x1F300..0x1FAFF or char in 0x20000..0x3FFFD,
       do: 2

  defp columns(_), do: 1

  @doc """
  Says on the error output why the demo cannot go on, and ends it with status 1.
  """
  def stop(message) do
    IO.puts(:stderr, "demo: #{message}")
    exit({:shutdown, 1})
  end
end
