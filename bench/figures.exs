defmodule Bench.Nothing do
  @moduledoc false
  # A backend that does nothing: what is left is Nx's own share of a call.
  defstruct []
  def add(out, _left, _right), do: out
end

defmodule Bench.Figures do
  @moduledoc false
  # What is measured. A figure has a key, a label, the call (`run`, made `calls` times in one
  # timing), the figure of peer.py that stands beside it (`python`), and perhaps a goal: a function
  # from Python's time to the most nanoseconds that Emily's call may take, with the words for it.

  alias Bench.{Peer, Report, Ticks, Timing}
  alias Emily.{Fast, Native}

  @heads {1, 8, 128, 64}
  @rows {1, 128, 1024}
  @bytes 16 * 1024 * 1024

  @doc "Measures the figures whose names hold `only`, and answers the tables in Markdown."
  def report(device, rounds, only) do
    figures = Enum.filter(goals() ++ details(), &String.contains?("#{&1.key} #{&1.label}", only))
    peer = Peer.start("figures.py", device, Timing.limits())
    IO.puts("#{length(figures)} figures, #{rounds} rounds, on the #{device}")

    measured =
      for round <- 1..rounds, reduce: %{} do
        measured ->
          IO.write(:stderr, "\rround #{round} of #{rounds} ")
          Enum.reduce(figures, measured, &turn(&1, &2, peer))
      end

    IO.write(:stderr, "\r")
    ticks = if String.contains?("ticks", only), do: Ticks.measure(rounds)
    Report.new(figures, measured, ticks, Peer.facts(peer), device, rounds)
  end

  defp turn(figure, measured, peer) do
    emily = figure[:run] && {{:emily, figure.key}, Timing.isolated(figure)}
    python = figure[:python] && {{:python, figure.key}, Peer.median(peer, figure.python)}

    for {key, time} <- Enum.filter([emily, python], & &1), reduce: measured do
      measured -> Map.update(measured, key, [time], &[time | &1])
    end
  end

  defp goals do
    {a, b} = {uniform({8}), uniform({8})}
    m = uniform({512, 512})
    large = uniform({div(@bytes, 4)})
    binary = Nx.to_binary(large)

    [
      %{
        key: "eager_add",
        label: "`Nx.add` of two `{8}` f32, not read",
        calls: 1000,
        run: fn -> Nx.add(a, b) end,
        python: "eager_add",
        goal: {"≤ 5 us", fn _ -> 5_000 end}
      },
      %{
        key: "chain",
        label: "100 such additions in a row, then read",
        calls: 1,
        run: fn -> Nx.to_binary(chain(a, b, 100)) end,
        python: "chain",
        goal: times(1.3)
      }
    ] ++
      kernels() ++
      [
        %{
          key: "dot",
          label: "`Nx.dot` 512x512 f32, evaluated",
          calls: 1,
          run: fn -> eval(Nx.dot(m, m)) end,
          python: "dot",
          goal: times(1.1)
        },
        %{
          key: "to_binary",
          label: "`Nx.to_binary` of 16 MB, evaluated before (beside: `memoryview`)",
          calls: 100,
          run: fn -> Nx.to_binary(large) end,
          python: "to_binary",
          goal: {"≤ 100 us", fn _ -> 100_000 end}
        },
        %{
          key: "from_binary",
          label: "`Nx.from_binary` of 16 MB (beside: memcpy into fresh memory)",
          calls: 1,
          run: fn -> Nx.from_binary(binary, :f32) end,
          collect: true,
          python: "memcpy_fresh",
          goal: times(1.3)
        }
      ]
  end

  defp kernels do
    for {name, shape} <- [{"heads", @heads}, {"rows", @rows}],
        {kernel, run, shape} <- fused(shape) do
      %{
        key: "#{kernel} #{name}",
        label: "`#{kernel}` #{inspect(shape)}, evaluated",
        calls: 1,
        run: fn -> eval(run.()) end,
        python: "#{kernel} #{name}",
        goal: {"≤ 1.15 x + 30 us", fn python -> python * 1.15 + 30_000 end}
      }
    end
  end

  defp fused(shape) do
    last = elem(shape, tuple_size(shape) - 1)
    x = uniform(shape)
    {w, b} = {uniform({last}), uniform({last})}
    offset = Nx.tensor(0)

    # Attention takes {1, 128, 1024} as 16 heads.
    heads = if shape == @rows, do: {1, 16, 128, 64}, else: shape
    {q, k, v} = {uniform(heads), uniform(heads), uniform(heads)}

    [
      {"rms_norm", fn -> Fast.rms_norm(x, w) end, shape},
      {"layer_norm", fn -> Fast.layer_norm(x, w, b) end, shape},
      {"rope", fn -> Fast.rope(x, offset, dims: last) end, shape},
      {"attention", fn -> Fast.scaled_dot_product_attention(q, k, v) end, heads},
      {"attention causal", fn -> Fast.scaled_dot_product_attention(q, k, v, causal: true) end,
       heads}
    ]
  end

  # Where the time goes.
  defp details do
    {a, b} = {uniform({8}), uniform({8})}
    {ref_a, ref_b} = {a.data.ref, b.data.ref}
    device = a.data.device
    nothing = %{a | data: %Bench.Nothing{}}
    {x, w} = {uniform(@heads), uniform({64})}
    rms_norm = Nx.Defn.compile(&Fast.rms_norm/2, [x, w], compiler: Emily.Compiler)
    binary = Nx.to_binary(uniform({div(@bytes, 4)}))

    [
      %{
        key: "nx_add",
        label: "`Nx.add` on a backend that does nothing",
        calls: 1000,
        run: fn -> Nx.add(nothing, nothing) end
      },
      %{
        key: "native_add",
        label: "`Emily.Native.run` of one addition, not read",
        calls: 1000,
        run: fn -> Native.run([{:add, ref_a, ref_b}], device) end,
        python: "eager_add"
      },
      %{
        key: "native_chain",
        label: "100 of these in a row, then read",
        calls: 1,
        run: fn -> Native.to_binary(native_chain(ref_a, ref_b, device, 100)) end,
        python: "chain"
      },
      %{
        key: "eval_add",
        label: "`Emily.Native.run` of one addition, evaluated",
        calls: 1,
        run: fn ->
          [sum] = Native.run([{:add, ref_a, ref_b}], device)
          Native.eval(sum)
        end,
        python: "eval_add"
      },
      %{
        key: "native_rms_norm",
        label: "`Emily.Native.rms_norm` #{inspect(@heads)}, evaluated",
        calls: 1,
        run: fn -> Native.eval(Native.rms_norm(x.data.ref, w.data.ref, 1.0e-6, device)) end,
        python: "rms_norm heads"
      },
      %{
        key: "compiled_rms_norm",
        label: "`rms_norm` #{inspect(@heads)} compiled by `Emily.Compiler`, evaluated",
        calls: 1,
        run: fn -> eval(rms_norm.(x, w)) end,
        python: "rms_norm heads"
      },
      %{
        key: "copy_binary",
        label: "`:binary.copy` of 16 MB (beside: memcpy into warm memory)",
        calls: 1,
        run: fn -> :binary.copy(binary) end,
        collect: true,
        python: "memcpy_warm"
      },
      %{
        key: "mx_array",
        label: "`Emily.Native.from_binary` of 16 MB (beside: `mx.array` of it)",
        calls: 1,
        run: fn -> Native.from_binary(binary, {div(@bytes, 4)}, :f32, device) end,
        collect: true,
        python: "from_binary"
      }
    ] ++ Bench.Einsum.figures(&uniform/1, &eval/1)
  end

  defp times(factor), do: {"≤ #{factor} x", fn python -> python * factor end}

  defp eval(tensor), do: Native.eval(tensor.data.ref)

  defp chain(x, _b, 0), do: x
  defp chain(x, b, length), do: chain(Nx.add(x, b), b, length - 1)

  defp native_chain(x, _b, _device, 0), do: x

  defp native_chain(x, b, device, length) do
    [sum] = Native.run([{:add, x, b}], device)
    native_chain(sum, b, device, length - 1)
  end

  defp uniform(shape) do
    {tensor, _key} = Nx.Random.uniform(Nx.Random.key(1), -1.0, 1.0, shape: shape, type: :f32)
    eval(tensor)
    tensor
  end
end
