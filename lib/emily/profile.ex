defmodule Emily.Profile do
  @moduledoc """
  Where the time goes: each operation's calls, time and bytes.

      profile = Emily.Profile.run(fn -> predict.(params, input) end)
      profile |> Emily.Profile.table() |> IO.puts()
      Emily.Profile.write_trace(profile, "trace.json")

  While `run/1` runs its function, each operation of the calling process is computed before the next begins, and its time is that from
  when its operands are there until its result is. So the whole takes longer than without: nothing overlaps, and what
  `Emily.Compiler` computes in one kernel takes several. Compiled functions are evaluated operation by operation, but for what
  `Nx.Defn.compile/3` has compiled before: that is one entry, `program`. Processes that the function starts are not
  measured, nor are those of an `Nx.Serving`.

  Nothing is measured, and nothing costs time, elsewhere.
  """

  alias Emily.Native

  @enforce_keys [:result, :duration, :events]
  defstruct [:result, :duration, :events]

  @typedoc """
  What was measured: the function's result, how long it took, and its operations in their order. Times are in
  nanoseconds, `:start` is counted from the beginning.
  """
  @type t :: %__MODULE__{result: term, duration: non_neg_integer, events: [event]}

  @typedoc "One call of an operation. `:bytes` are those of its operands and results in MLX's memory; `:operands` has their shapes and types."
  @type event :: %{
          op: String.t(),
          start: non_neg_integer,
          time: non_neg_integer,
          bytes: non_neg_integer,
          operands: [String.t()]
        }

  @typedoc "All calls of an operation; `:share` is that of the time of all operations, from 0 to 1."
  @type row :: %{
          op: String.t(),
          calls: pos_integer,
          time: non_neg_integer,
          bytes: non_neg_integer,
          share: float
        }

  @doc """
  Runs `fun` and measures its operations. Its result is in the profile's `:result`.

      iex> x = Nx.iota({100, 100}, type: :f32, backend: Emily.Backend)
      iex> profile = Emily.Profile.run(fn -> x |> Nx.dot(x) |> Nx.exp() |> Nx.exp() |> Nx.shape() end)
      iex> {profile.result, Enum.map(profile.events, & &1.op)}
      {{100, 100}, ["dot", "exp", "exp"]}

  Raises an `ArgumentError` within another `run/1`, and what `fun` raises.
  """
  @spec run((-> result :: term)) :: t
  def run(fun) when is_function(fun, 0) do
    if on?(), do: raise(ArgumentError, "Emily.Profile.run/1 is running in this process already")
    start = now()
    Process.put(__MODULE__, {start, []})

    try do
      result = fun.()
      {^start, events} = Process.get(__MODULE__)
      %__MODULE__{result: result, duration: now() - start, events: Enum.reverse(events)}
    after
      Process.delete(__MODULE__)
    end
  end

  def run(other) do
    raise ArgumentError,
          "Emily.Profile.run/1 expects a function without arguments, got: #{inspect(other)}"
  end

  @doc """
  The operations by their names, those that took the longest first.

      iex> x = Nx.iota({100, 100}, type: :f32, backend: Emily.Backend)
      iex> profile = Emily.Profile.run(fn -> Nx.add(Nx.exp(x), Nx.exp(x)) end)
      iex> profile |> Emily.Profile.rows() |> Enum.map(&{&1.op, &1.calls, &1.bytes}) |> Enum.sort()
      [{"add", 1, 120_000}, {"exp", 2, 160_000}]
  """
  @spec rows(t) :: [row]
  def rows(%__MODULE__{events: events}) do
    total = max(sum(events, :time), 1)

    events
    |> Enum.group_by(& &1.op)
    |> Enum.map(fn {op, events} ->
      time = sum(events, :time)
      bytes = sum(events, :bytes)
      %{op: op, calls: length(events), time: time, bytes: bytes, share: time / total}
    end)
    |> Enum.sort_by(&{-&1.time, &1.op})
  end

  defp sum(events, key), do: events |> Enum.map(&Map.fetch!(&1, key)) |> Enum.sum()

  @doc """
  The profile as a table in text: for each operation its calls, its time in milliseconds, the megabytes of its operands and results,
  and its share of the time of all operations.

      iex> x = Nx.iota({100, 100}, type: :f32, backend: Emily.Backend)
      iex> [header, line, total | _] = Emily.Profile.run(fn -> Nx.exp(x) end) |> Emily.Profile.table() |> String.split("\\n")
      iex> String.split(header)
      ["operation", "calls", "ms", "MB", "share"]
      iex> {["exp", "1", _ms, "0.08", "100.0%"], ["all", "1" | _]} = {String.split(line), String.split(total)}
  """
  @spec table(t) :: String.t()
  def table(%__MODULE__{} = profile) do
    rows = rows(profile)
    [time, bytes, calls] = for key <- [:time, :bytes, :calls], do: sum(rows, key)

    all = %{
      op: "all",
      calls: calls,
      time: time,
      bytes: bytes,
      share: if(rows == [], do: 0.0, else: 1.0)
    }

    cells =
      for row <- rows ++ [all] do
        [
          row.op,
          to_string(row.calls),
          decimal(row.time / 1.0e6, 3),
          decimal(row.bytes / 1.0e6, 2)
        ] ++
          [decimal(100.0 * row.share, 1) <> "%"]
      end

    lines([["operation", "calls", "ms", "MB", "share"] | cells])
  end

  defp decimal(number, digits), do: :erlang.float_to_binary(number, decimals: digits)

  defp lines(cells) do
    widths =
      cells
      |> Enum.zip_with(& &1)
      |> Enum.map(&(&1 |> Enum.map(fn cell -> String.length(cell) end) |> Enum.max()))

    Enum.map_join(cells, "\n", fn [op | numbers] ->
      [width | rest] = widths
      padded = Enum.zip_with(numbers, rest, &String.pad_leading/2)
      Enum.join([String.pad_trailing(op, width) | padded], "  ")
    end) <> "\n"
  end

  @doc """
  Writes the profile to a file in Chrome's form of traces, which `chrome://tracing` and Perfetto show as a flame chart.

      iex> x = Nx.tensor([1.0, 2.0], backend: Emily.Backend)
      iex> path = Path.join(System.tmp_dir!(), "emily-trace-\#{System.pid()}.json")
      iex> Emily.Profile.run(fn -> Nx.exp(x) end) |> Emily.Profile.write_trace(path)
      :ok
      iex> File.read!(path) =~ ~s("name":"exp")
      true
      iex> File.rm!(path)
      :ok

  Raises a `File.Error` where the file cannot be written.
  """
  @spec write_trace(t, Path.t()) :: :ok
  def write_trace(%__MODULE__{} = profile, path) do
    whole = %{op: "Emily.Profile.run", start: 0, time: profile.duration, bytes: 0, operands: []}
    events = Enum.map([whole | profile.events], &trace_event/1)

    File.write!(path, [
      ~s({"displayTimeUnit":"ns","traceEvents":[),
      Enum.intersperse(events, ",\n"),
      "]}\n"
    ])
  end

  # Chrome's times are in microseconds.
  defp trace_event(event) do
    [
      [~s({"ph":"X","pid":1,"tid":1,"cat":"emily","name":), json(event.op)],
      [~s(,"ts":), decimal(event.start / 1000, 3), ~s(,"dur":), decimal(event.time / 1000, 3)],
      [~s(,"args":{"bytes":), to_string(event.bytes)],
      [~s(,"operands":), json(Enum.join(event.operands, ", ")), "}}"]
    ]
  end

  defp json(text) do
    escaped =
      for <<char::utf8 <- text>>, into: "" do
        if char in [?", ?\\] or char < 32,
          do: "\\u" <> (char |> Integer.to_string(16) |> String.pad_leading(4, "0")),
          else: <<char::utf8>>
      end

    [?", escaped, ?"]
  end

  @doc false
  def on?, do: :erlang.get(__MODULE__) != :undefined

  @doc false
  # An operation on arrays, measured. `arrays` gives those of its result.
  def measured(name, operands, run, arrays) do
    Native.eval(operands)
    from = now()
    result = run.()
    results = arrays.(result)
    Native.eval(results)
    until = now()
    {start, events} = Process.get(__MODULE__)

    event = %{
      op: name(name),
      start: from - start,
      time: until - from,
      bytes: (operands ++ results) |> Enum.map(&Native.nbytes/1) |> Enum.sum(),
      operands: for(x <- operands, do: "#{inspect(Native.shape(x))} #{Native.dtype(x)}")
    }

    Process.put(__MODULE__, {start, [event | events]})
    result
  end

  defp name(%block{}), do: block |> Module.split() |> List.last() |> Macro.underscore()
  defp name(name), do: to_string(name)

  defp now, do: System.monotonic_time(:nanosecond)
end
