defmodule Bench.Sweep do
  @moduledoc false
  # bench/run --sweep: every operation beside Python's mlx, evaluated one call at a time, and the
  # cheap ones in 64 independent calls at once. That leaves the wakes of threads out, which a single
  # cheap call consists of.

  alias Bench.{Operations, Peer, Timing}

  @sizes [1_000, 100_000, 10_000_000]
  @batch 64
  # Nanoseconds beside which a wake is nothing.
  @cheap 2_000_000
  # The outputs of a batch of these would fill the memory, and a wake is nothing beside them.
  @largest_batch 100_000
  @limits %{warm_up: 1, warm_up_ms: 10, samples: 3, budget_ms: 15}
  @limit 1.5

  def sizes, do: @sizes

  @doc "Sizes from text, as in `1e3,1e5`."
  def sizes(text) do
    for size <- String.split(text, ",") do
      {number, ""} = Float.parse(size)
      trunc(number)
    end
  end

  @doc "Measures the rows whose call holds `only`, or one of `a|b`, and answers the table in Markdown."
  def report(device, sizes, rounds, only) do
    {rows, facts} = measure(device, sizes, rounds, only)

    Enum.join(
      [
        Bench.Report.machine(facts, device, rounds) <> " In microseconds.",
        summary(rows),
        table(rows, sizes)
      ],
      "\n\n"
    )
  end

  # The rows with their times, and the versions.
  defp measure(device, sizes, rounds, only) do
    peer = Peer.start("sweep.py", device, @limits)
    rows = Enum.filter(Operations.all(), &String.contains?(&1.nx, String.split(only, "|")))

    times =
      for size <- sizes, reduce: %{} do
        times ->
          inputs = Operations.inputs(size)
          # The first calls of a size take fresh memory from the system.
          turn(%{}, hd(rows), size, List.last(counts(size)), inputs, peer)

          for round <- 1..rounds(size, rounds), row <- rows, size <= row.most, reduce: times do
            times ->
              IO.write(:stderr, "\r#{size} elements, round #{round} ")

              Enum.reduce_while(counts(size), times, fn count, times ->
                times = turn(times, row, size, count, inputs, peer)
                {_, python} = hd(times[{row.at, size, count}])
                {if(python < @cheap, do: :cont, else: :halt), times}
              end)
          end
      end

    IO.write(:stderr, "\r")
    {Enum.map(rows, &Map.put(&1, :times, times(times, &1))), Peer.facts(peer)}
  end

  # The largest calls take long, and vary less.
  defp rounds(size, rounds) when size > @largest_batch, do: max(div(rounds, 3), 1)
  defp rounds(_size, rounds), do: rounds

  defp counts(size) when size > @largest_batch, do: [1]
  defp counts(_size), do: [1, @batch]

  defp turn(times, row, size, count, inputs, peer) do
    run = fn -> Emily.Native.eval(for _ <- 1..count, ref <- call(row.at, inputs), do: ref) end
    emily = Timing.isolated(%{calls: 1, run: run, collect: true}, @limits)
    python = Peer.median(peer, "#{size} #{count} #{row.mx}")
    taken = {emily / count, python / count}
    Map.update(times, {row.at, size, count}, [taken], &[taken | &1])
  end

  defp call(at, inputs) do
    case Operations.call(at, inputs) do
      %Nx.Tensor{} = tensor -> [tensor.data.ref]
      tensors -> for tensor <- Tuple.to_list(tensors), do: tensor.data.ref
    end
  end

  # The medians of each side, by size and count.
  defp times(times, row) do
    for {{at, size, count}, taken} <- times, at == row.at, into: %{} do
      {emily, python} = Enum.unzip(taken)
      {{size, count}, {Timing.middle(emily), Timing.middle(python)}}
    end
  end

  defp summary(rows) do
    groups = Enum.frequencies_by(rows, &why/1)
    wakes = groups["wake"] || 0
    none = groups["NO REASON"] || 0
    within = groups[""] || 0

    "#{length(rows)} operations; at 1e5 elements and above #{within} are within #{@limit} x, #{wakes} wait " <>
      "for a thread, #{length(rows) - within - wakes - none} have another reason, #{none} have none."
  end

  defp table(rows, sizes) do
    heads =
      ["Nx", "Python's mlx"] ++
        Enum.flat_map(sizes, fn size ->
          for head <-
                ["Emily", "mlx", "ratio"] ++
                  if(size <= @largest_batch, do: ["in #{@batch}"], else: []),
              do: "#{exponent(size)}: #{head}"
        end) ++ ["why above #{@limit}"]

    lines =
      for row <- rows do
        [code(row.nx), code(row.mx)] ++ Enum.flat_map(sizes, &cells(row, &1)) ++ [why(row)]
      end

    Bench.Report.table(heads, Enum.map(lines, &Bench.Report.row/1))
  end

  # A bar would end the cell.
  defp code(text), do: "`#{String.replace(text, "|", "\\|")}`"

  defp exponent(size), do: "1e#{size |> :math.log10() |> round()}"

  defp cells(row, size) do
    single = row.times[{size, 1}]
    {emily, python} = single || {nil, nil}
    cells = [Bench.Report.us(emily), Bench.Report.us(python), Bench.Report.ratio(emily, python)]

    if size <= @largest_batch do
      {emily, python} = row.times[{size, @batch}] || {nil, nil}
      cells ++ [Bench.Report.ratio(emily, python)]
    else
      cells
    end
  end

  # From 1e5 elements on every row has a reason or is within the limit.
  defp why(row) do
    above =
      for {{size, 1}, time} <- row.times,
          size >= 100_000,
          above?(time),
          do: {size, row.times[{size, @batch}]}

    cond do
      above == [] -> ""
      row.why -> row.why
      Enum.all?(above, fn {_, batch} -> batch && not above?(batch) end) -> "wake"
      true -> "NO REASON"
    end
  end

  defp above?({emily, python}), do: emily > @limit * python
end
