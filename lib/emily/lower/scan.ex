defmodule Emily.Lower.Scan do
  @moduledoc false
  # Cumulative operations.

  import Emily.Lower.Types

  @operations [
    cumulative_sum: :cumsum,
    cumulative_product: :cumprod,
    cumulative_max: :cummax,
    cumulative_min: :cummin
  ]

  def names, do: Keyword.keys(@operations)

  for {name, op} <- @operations do
    def lower(unquote(name), %{type: type}, [tensor, opts]) do
      {unquote(op), cast(tensor, type), opts[:axis], opts[:reverse] || false}
    end
  end
end
