defmodule Emily.BoundsTest do
  # The setting is the application's, so no other test may run beside.
  use Emily.BackendCase, async: false

  setup do
    Application.put_env(:emily, :check_bounds, true)
    on_exit(fn -> Application.delete_env(:emily, :check_bounds) end)
    %{x: Nx.tensor([[1, 2, 3], [4, 5, 6]], backend: Emily.Backend)}
  end

  test "raise with the function, the index, the axis and the shapes", %{x: x} do
    message = ~r/take: index 3 is out of bounds for axis 1 in shape \{2, 3\}.*\{2\}/
    assert_raise ArgumentError, message, fn -> Nx.take(x, Nx.tensor([0, 3]), axis: 1) end

    assert_raise ArgumentError, ~r/take_along_axis: index -1 .* axis 0/, fn ->
      Nx.take_along_axis(x, Nx.tensor([[0, -1, 0]]), axis: 0)
    end

    assert_raise ArgumentError, ~r/gather: index 2 .* axis 0/, fn ->
      Nx.gather(x, Nx.tensor([[0, 0], [2, 0]]))
    end

    for fun <- [&Nx.indexed_add/3, &Nx.indexed_put/3] do
      assert_raise ArgumentError, ~r/index 9 is out of bounds for axis 1/, fn ->
        fun.(x, Nx.tensor([[0, 9]]), Nx.tensor([1]))
      end
    end
  end

  test "vectorised tensors raise too", %{x: x} do
    indices = Nx.vectorize(Nx.tensor([[0, 1], [7, 0]]), :rows)

    assert_raise ArgumentError, ~r/index 7 is out of bounds/, fn ->
      Nx.take(Nx.vectorize(x, :rows), indices)
    end
  end

  test "indices within their axes pass", %{x: x} do
    assert Nx.to_flat_list(Nx.take(x, Nx.tensor([2, 0]), axis: 1)) == [3, 1, 6, 4]
    assert Nx.to_flat_list(Nx.gather(x, Nx.tensor([[2], [0]]), axes: [1])) == [3, 6, 1, 4]
  end

  test "without the setting they clamp", %{x: x} do
    Application.put_env(:emily, :check_bounds, false)
    assert Nx.to_flat_list(Nx.take(x, Nx.tensor([-5, 9]), axis: 1)) == [1, 3, 4, 6]
  end
end
