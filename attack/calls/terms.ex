defmodule Attack.Calls.Terms do
  @moduledoc false
  # Terms that nobody should pass.

  import Attack.Draw

  @integers [0, 1, -1, 2, 255, 256, 1_000_000, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), -(2 ** 31) - 1] ++
              [2 ** 32, 2 ** 53, 2 ** 63 - 1, 2 ** 63, -(2 ** 63), -(2 ** 63) - 1, 2 ** 64 - 1] ++
              [2 ** 64, 2 ** 127, -(2 ** 200)]
  @floats [0.0, -0.0, 0.5, 1.0e308, -1.0e308, 5.0e-324, 2.0 ** 63]
  @atoms [nil, true, false, :nan, :infinity, :neg_infinity, :f32, :s64, :f8, :cpu, :gpu, :tpu] ++
           [:causal, :all, :add, :"", :"a very long name of an atom that is no name of anything"]
  @texts [
    "",
    "ij,jk->ik",
    "->",
    "affine",
    "q4_k",
    <<255, 254>>,
    <<0>>,
    <<1::3>>,
    "é",
    "\u{1F600}"
  ]

  @doc "Any term; `arrays` are references to some arrays."
  def any(arrays, depth \\ 0) do
    case integer(1, if(depth > 3, do: 8, else: 14)) do
      1 -> pick(@integers)
      2 -> pick(@floats)
      3 -> pick(@atoms)
      4 -> pick(@texts)
      5 -> foreign()
      n when n in 6..8 -> pick(arrays)
      9 -> some(0, 4, fn -> any(arrays, depth + 1) end)
      10 -> improper(arrays, depth)
      11 -> some(0, 4, fn -> any(arrays, depth + 1) end) |> List.to_tuple()
      12 -> some(1, 4, fn -> pick(@integers) end)
      13 -> %{any(arrays, depth + 1) => any(arrays, depth + 1)}
      14 -> if chance(0.02), do: huge(arrays), else: {pick(@atoms), any(arrays, depth + 1)}
    end
  end

  def integer, do: pick(@integers)
  def float, do: pick(@floats ++ [:nan, :infinity, :neg_infinity])

  defp improper(arrays, depth), do: [any(arrays, depth + 1) | pick([1, :a, "b", hd(arrays)])]

  # References of others, and one that was a resource until it left the VM.
  defp foreign do
    pick([
      make_ref(),
      self(),
      hd(Port.list()),
      fn x -> x end,
      &Enum.map/2,
      :atomics.new(1, []),
      :ets.whereis(:logger),
      :persistent_term.get({__MODULE__, :stale}),
      :persistent_term.get({__MODULE__, :program}),
      :persistent_term.get({__MODULE__, :closed}),
      URI.parse("a"),
      1..3
    ])
  end

  # Deep, long, and shared so often that no memory holds it written out.
  defp huge(arrays) do
    array = hd(arrays)

    case integer(1, 8) do
      1 -> Enum.reduce(1..100_000, array, fn _, x -> {:abs, x} end)
      2 -> Enum.reduce(1..100_000, array, fn _, x -> [x] end)
      3 -> Enum.to_list(1..100_000)
      4 -> Tuple.duplicate(array, 100_000)
      5 -> List.duplicate(array, 100_000)
      6 -> Enum.reduce(1..60, array, fn _, x -> {:add, x, x} end)
      7 -> Enum.reduce(1..60, array, fn _, x -> [x, x] end)
      8 -> Enum.reduce(1..100_000, array, fn i, x -> {:let, i, array, x} end)
    end
  end

  @doc "Makes the references that `any/2` names."
  def prepare do
    # What refers to an array that is gone.
    written =
      Task.async(fn ->
        [array] = Emily.Native.run([{:full, [2], 1, :f32}])
        :erlang.term_to_binary(array)
      end)
      |> Task.await()

    :erlang.garbage_collect()
    reference = :erlang.binary_to_term(written)
    closed = Emily.Native.stream_new(:cpu)
    Emily.Native.stream_close(closed)
    program = Emily.Native.Program.compile({[0], [], [{:var, 0}]})

    for {name, value} <- [stale: reference, closed: closed, program: program.ref],
        do: :persistent_term.put({__MODULE__, name}, value)
  end
end
