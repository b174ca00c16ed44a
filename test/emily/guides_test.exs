defmodule Emily.GuidesTest do
  use ExUnit.Case, async: true

  setup do
    Nx.default_backend(Emily.Backend)
    # As for a user, where the rest of the suite forbids it.
    Process.put(Emily.Fallback, :silent)
    :ok
  end

  doctest_file("guides/differences.md")
  doctest_file("guides/migration.md")
  # Axon takes one line of Nx versions; the suite also runs on others.
  if Code.ensure_loaded?(Axon), do: doctest_file("guides/training.md")

  test "the guide's table of fallbacks has every reason that a lowering gives" do
    [_, table] = Regex.run(~r"## What leaves MLX(.*?)## "s, File.read!("guides/differences.md"))
    listed = for [_, reason] <- Regex.scan(~r/^\| `.*` \| (.+) \|$/m, table), do: reason

    given =
      for path <- Path.wildcard("lib/emily/lower/**/*.ex"),
          [answer] <- Regex.scan(~r/:fallback\b[^}]*}?/, File.read!(path)) do
        [_, reason] = Regex.run(~r/^:fallback, "(.+)"}/, answer)
        reason
      end

    assert given != []
    assert Enum.sort(listed) == given |> Enum.uniq() |> Enum.sort()
  end

  test "the messages that troubleshooting explains are those that are raised" do
    [_, table] = String.split(File.read!("guides/troubleshooting.md"), "## What a message means")

    explained =
      for [_, cell] <- Regex.scan(~r/^\| (`.+?) \| /m, table),
          [_, text] <- Regex.scan(~r/`([^`]+)`/, cell),
          do: text

    Nx.default_backend({Emily.Backend, device: :cpu})
    x = Nx.tensor([1.0, 2.0])
    stream = Emily.Stream.new(:cpu)
    Emily.Stream.close(stream)
    cards = length(Emily.Native.devices()) - 1

    raised =
      for fun <- [
            fn ->
              Emily.Fallback.with_mode(:raise, fn -> Nx.reduce(x, 0, &Nx.subtract/2) end)
            end,
            fn ->
              x |> Nx.sum() |> Nx.broadcast({1_000_000, 1_000_000, 1_000}) |> Nx.to_binary()
            end,
            fn -> Nx.tensor(1, backend: {Emily.Backend, device: :tpu}) end,
            fn -> Nx.tensor(1, backend: {Emily.Backend, device: {:gpu, cards + 1}}) end,
            fn -> Emily.Stream.with_stream(stream, fn -> Nx.add(x, 1) end) end,
            fn -> Nx.Defn.jit_apply(&Nx.sin/1, [x], compiler: Emily.Compiler, fast: true) end
          ] do
        error = assert_raise_any(fun)
        assert Enum.any?(explained, &said?(error, &1)), "no row for: #{error}"
        error
      end

    # Of the two about a GPU this machine has one.
    gpu = ["this MLX has no GPU", "there is no {:gpu, 1}"]

    for text <- explained,
        text not in gpu,
        do: assert(Enum.any?(raised, &said?(&1, text)), "nothing says: #{text}")

    assert gpu -- explained == []
  end

  defp said?(message, text) do
    parts = text |> String.split([" ... ", "{:gpu, 1}"]) |> Enum.map(&Regex.escape/1)
    message =~ Regex.compile!(Enum.join(parts, ".+"))
  end

  defp assert_raise_any(fun) do
    fun.()
    flunk("nothing was raised")
  rescue
    error in [ArgumentError, RuntimeError, Emily.Error] -> Exception.message(error)
  end

  test "no table is broken by an empty line" do
    for path <- Path.wildcard("guides/*.{md,cheatmd}") ++ ["README.md"] do
      for [begin, next] <- path |> File.read!() |> tables(),
          do: assert(next =~ ~r/^\|[\s:|-]+\|$/, "#{path}: #{begin}")
    end
  end

  # The first two lines of what begins with bars.
  defp tables(text) do
    text
    |> String.split("\n")
    |> Enum.chunk_by(&String.starts_with?(&1, "|"))
    |> Enum.filter(&String.starts_with?(hd(&1), "|"))
    |> Enum.map(&[hd(&1), Enum.at(&1, 1, "")])
  end
end
