defmodule Emily.GuidesTest do
  use ExUnit.Case, async: true

  setup do
    Nx.default_backend(Emily.Backend)
    :ok
  end

  doctest_file("guides/differences.md")
end
