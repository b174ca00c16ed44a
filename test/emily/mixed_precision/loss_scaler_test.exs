defmodule Emily.MixedPrecision.LossScalerTest do
  use ExUnit.Case, async: true

  alias Emily.MixedPrecision.LossScaler

  doctest Emily.MixedPrecision.LossScaler

  test "the defaults" do
    assert LossScaler.new() == %LossScaler{
             scale: 65_536.0,
             growth_factor: 2.0,
             backoff_factor: 0.5,
             growth_interval: 2000,
             min_scale: 1.0,
             counter: 0
           }
  end

  test "wrong options are refused by name" do
    for {name, value} <- [
          scale: 0.0,
          scale: -1.0,
          scale: "large",
          growth_factor: 0.5,
          backoff_factor: 2.0,
          backoff_factor: 0,
          growth_interval: 0,
          growth_interval: 1.5,
          min_scale: 0,
          min_scale: nil
        ] do
      assert_raise ArgumentError, ~r/LossScaler.new\/1: #{inspect(name)} must be/, fn ->
        LossScaler.new([{name, value}])
      end
    end

    assert_raise ArgumentError, ~r/unknown keys \[:counter\]/, fn ->
      LossScaler.new(counter: 1)
    end
  end
end
