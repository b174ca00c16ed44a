defmodule Emily.Conformance.Exclusions do
  def names(_), do: []
end
