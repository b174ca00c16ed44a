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
end
