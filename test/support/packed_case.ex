defmodule Emily.PackedCase do
  @moduledoc false
  # What the tests of packed weights share: weights that MLX packed, and numbers of them by NumPy.

  use ExUnit.CaseTemplate

  # Read where the tests run, which may be another machine than that which compiled this.
  @fixtures "test/fixtures/quantized/weights.terms"
  @external_resource @fixtures
  @shape {2, 128}

  using do
    quote do
      import Emily.PackedCase
    end
  end

  @doc "The packed weights."
  def cases, do: for(%{} = packed <- terms(), do: packed)

  @doc "The dense weight that was packed, by its type."
  def dense(type, backend) do
    [hex] = for {^type, hex} <- terms(), do: hex
    hex |> bytes() |> Nx.from_binary(type, backend: backend) |> Nx.reshape(@shape)
  end

  @doc "A packed weight of the fixtures, as a weight."
  def weight(packed, backend, transpose \\ true) do
    {scale_type, biases} =
      if packed.mode == "affine",
        do: {packed.type, tensor(packed.biases, packed.type, backend)},
        else: {:u8, Nx.tensor(0, type: :u8, backend: backend)}

    %Emily.QuantizedWeight{
      value: tensor(packed.value, :u32, backend),
      scales: tensor(packed.scales, scale_type, backend),
      biases: biases,
      group_size: packed.group,
      bits: packed.bits,
      transpose: transpose,
      mode: packed.mode
    }
  end

  @doc "Its numbers in f32."
  def unpacked(packed), do: tensor(packed.dense, :f32, Nx.BinaryBackend)

  @doc "The bytes of a fixture."
  def bytes(hex), do: Base.decode16!(hex, case: :lower)

  defp tensor(hex, type, backend),
    do: hex |> bytes() |> Nx.from_binary(type, backend: backend) |> Nx.reshape({2, :auto})

  defp terms do
    {:ok, terms} = :file.consult(@fixtures)
    terms
  end
end
