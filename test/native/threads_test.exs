Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.ThreadsTest do
  # The number of threads is the whole VM's.
  use NativeCase, async: false

  alias Emily.Native.Threads

  setup do
    before = Native.threads()
    on_exit(fn -> Native.set_threads(before) end)
  end

  test "a product is the same on any number of threads" do
    [x] = Native.run([{:sin, {:reshape, {:arange, 0, 300 * 400, 1, :f32}, [300, 400]}}])
    [y] = Native.run([{:cos, {:reshape, {:arange, 0, 400 * 500, 1, :f32}, [400, 500]}}])

    [one | others] =
      for threads <- [1, 2, 3, :all] do
        Native.set_threads(threads)
        Native.to_binary(run({:matmul, x, y}))
      end

    assert Enum.all?(others, &(&1 == one))
  end

  test "several evaluations share the threads" do
    Native.set_threads(2)
    [x] = Native.run([{:full, [512, 512], 0.5, :f32}])

    tasks =
      for _ <- 1..8 do
        Task.async(fn ->
          stream = Native.stream_new(:cpu)
          for _ <- 1..20, do: Native.to_binary(hd(Native.run([{:matmul, x, x}], stream)))
        end)
      end

    results = tasks |> Task.await_many(limit(120_000)) |> List.flatten() |> Enum.uniq()
    assert results == [String.duplicate(<<128.0::float-32-native>>, 512 * 512)]
  end

  test "the number before is answered" do
    Native.set_threads(3)
    assert Native.set_threads(2) == 3
    assert Native.threads() == 2
    assert Native.set_threads(:all) == 2
    assert Native.threads() in 1..System.schedulers()
  end

  test "anything else is refused" do
    for wrong <- [0, -1, 1025, 2.0, nil, "2"] do
      assert_raise ArgumentError,
                   ~r/set_threads takes :all or a number from 1 to 1024, got/,
                   fn ->
                     Native.set_threads(wrong)
                   end

      Application.put_env(:emily, :threads, wrong)
      on_exit(fn -> Application.delete_env(:emily, :threads) end)
      assert_raise ArgumentError, ~r/config :emily, :threads takes/, &Threads.configured/0
    end
  end

  test "the setting is honoured when the library is loaded" do
    program = "Application.put_env(:emily, :threads, 3); IO.puts(Emily.Native.threads())"
    {output, 0} = System.cmd("elixir", NativeCase.code_paths() ++ ["-e", program])
    assert output == "3\n"
  end
end
