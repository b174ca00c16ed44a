defmodule Emily.MixedPrecision.LossScaler do
  @moduledoc """
  By how much a loss is scaled, and when that changes: see `Emily.MixedPrecision`.

  The scale is halved when gradients overflow, and doubled after many good steps. The fields are those of `new/1`, and
  `:counter`, the number of good steps since the scale last changed.

  A scaler is an `Nx.Container` of `:scale` and `:counter`, so that a step that is compiled can take it.
  """

  @defaults [
    scale: 65_536.0,
    growth_factor: 2.0,
    backoff_factor: 0.5,
    growth_interval: 2000,
    min_scale: 1.0
  ]

  @derive {Nx.Container,
           containers: [:scale, :counter],
           keep: [:growth_factor, :backoff_factor, :growth_interval, :min_scale]}
  defstruct @defaults ++ [counter: 0]

  @typedoc "A scaler."
  @type t :: %__MODULE__{
          scale: number | Nx.Tensor.t(),
          growth_factor: number,
          backoff_factor: number,
          growth_interval: pos_integer,
          min_scale: number,
          counter: non_neg_integer | Nx.Tensor.t()
        }

  @doc """
  A scaler.

  ## Options

    * `:scale` - the scale to begin with. Defaults to `65536.0`
    * `:growth_factor` - by what the scale is multiplied after good steps; at least 1. Defaults to `2.0`
    * `:backoff_factor` - by what it is multiplied on overflow; at most 1. Defaults to `0.5`
    * `:growth_interval` - after how many good steps it grows. Defaults to `2000`
    * `:min_scale` - what it never falls below. Defaults to `1.0`

  Raises an `ArgumentError` for other options, and for values that they do not take.

      iex> scaler = Emily.MixedPrecision.LossScaler.new(scale: 1024.0)
      iex> {scaler.scale, scaler.counter, scaler.growth_interval}
      {1024.0, 0, 2000}
  """
  @spec new(keyword) :: t
  def new(opts \\ []) do
    opts =
      Emily.Native.Options.validate!(opts, @defaults, "Emily.MixedPrecision.LossScaler.new/1")

    positive? = &(is_number(&1) and &1 > 0)

    check(opts, :scale, "a number greater than 0", positive?)
    check(opts, :growth_factor, "a number of at least 1", &(positive?.(&1) and &1 >= 1))

    check(
      opts,
      :backoff_factor,
      "a number greater than 0, up to 1",
      &(positive?.(&1) and &1 <= 1)
    )

    check(opts, :growth_interval, "a positive integer", &(is_integer(&1) and &1 > 0))
    check(opts, :min_scale, "a number greater than 0", positive?)
    struct!(__MODULE__, opts)
  end

  defp check(opts, name, what, valid?) do
    value = opts[name]

    if not valid?.(value) do
      raise ArgumentError,
            "Emily.MixedPrecision.LossScaler.new/1: #{inspect(name)} must be #{what}, got: #{inspect(value)}"
    end
  end
end
