defmodule Emily.GGUFTest do
  use ExUnit.Case, async: true

  doctest Emily.GGUF
end
