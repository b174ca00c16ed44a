defmodule Attack.Calls.Pool do
  @moduledoc false
  # Arrays of MLX's that calls are made with: all types, ranks from 0 to 12, views, numbers that are none, and views so large
  # that no memory holds them.

  import Attack.Draw
  alias Emily.Native

  @types [:bool, :u8, :u16, :u32, :u64, :s8, :s16, :s32, :s64, :f16, :bf16, :f32, :f64, :c64]
  @sizes %{bool: 1, u8: 1, s8: 1, u16: 2, s16: 2, f16: 2, bf16: 2, u32: 4, s32: 4, f32: 4}
         |> Map.merge(%{u64: 8, s64: 8, f64: 8, c64: 8})

  def types, do: @types

  @doc "`%{small: arrays, huge: arrays}`."
  def prepare do
    dense = for _ <- 1..60, do: dense(shape())

    floats =
      for shape <- [[4, 4], [2, 4, 4], [1, 2, 3, 8], [1, 2, 3, 8], [4], [8], [2, 64]],
          do: dense(shape, :f32)

    integers =
      for type <- [:s32, :s64, :u8], shape <- [[], [1], [3], [2, 2]], do: dense(shape, type)

    base = dense ++ floats ++ integers
    views = for x <- base, chance(0.7), view <- view(x), do: view
    %{small: Enum.map(base ++ views, &evaluated/1), huge: huge()}
  end

  defp evaluated(x) do
    if flag(), do: Native.eval(x)
    x
  end

  @doc "A shape of few elements."
  def shape do
    case integer(1, 10) do
      1 -> []
      2 -> some(5, 12, fn -> pick([1, 1, 1, 2]) end)
      3 -> some(1, 12, fn -> 1 end)
      _ -> some(1, 4, fn -> pick([1, 2, 2, 3, 4, 5]) end)
    end
  end

  def dense(shape, type \\ pick(@types)) do
    count = Enum.product(shape)

    bytes =
      if type == :bool,
        do: for(_ <- 1..count, into: <<>>, do: <<integer(0, 1)>>),
        else: :rand.bytes(count * @sizes[type])

    # Numbers of random bits are mostly far from one.
    if type == :f32 and chance(0.7),
      do:
        Native.from_binary(
          for(_ <- 1..count, into: <<>>, do: <<:rand.normal()::float-32-native>>),
          shape,
          type,
          :cpu
        ),
      else: Native.from_binary(bytes, shape, type, :cpu)
  end

  defp view(x) do
    sizes = x |> Native.shape() |> Tuple.to_list()
    axes = Enum.to_list(0..(length(sizes) - 1)//1)

    Native.run(
      [
        pick([
          {:transpose, x, Enum.shuffle(axes)},
          {:flip, x, axes},
          {:broadcast_to, x, [3 | sizes]},
          {:reshape, x, [1, Enum.product(sizes), 1]},
          {:slice, x, Enum.map(sizes, fn _ -> 0 end), sizes,
           Enum.map(sizes, fn _ -> integer(1, 2) end)},
          {:as_strided, x, [2, 2], [0, 0], 0},
          {:astype, x, pick(@types)}
        ])
      ],
      :cpu
    )
  end

  defp huge do
    for shape <- [
          [2 ** 31 - 1],
          [100_000, 100_000],
          [2 ** 20, 2 ** 20, 4],
          [65_536, 2, 65_536],
          List.duplicate(16, 12)
        ],
        type <- [:u8, :f32, :c64] do
      [x] = Native.run([{:broadcast_to, {:full, [], 1, type}, shape}], :cpu)
      x
    end
  end
end
