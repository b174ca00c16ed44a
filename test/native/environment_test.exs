Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.EnvironmentTest do
  use ExUnit.Case, async: true

  # Settings are read when the library is loaded, so each is tried in a VM of its own.
  defp elixir(script, env \\ []) do
    arguments = NativeCase.code_paths() ++ ["-e", script]
    System.cmd("elixir", arguments, stderr_to_stdout: true, env: env)
  end

  for {precision, expected} <- [f32: "0", tf32: "1"] do
    test "matmul_precision: #{precision} is MLX's variable" do
      script =
        "Application.put_env(:emily, :matmul_precision, #{inspect(unquote(precision))}); " <>
          "IO.inspect(Emily.Native.Environment.variables())"

      assert {output, 0} = elixir(script)
      assert output =~ ~s({"MLX_ENABLE_TF32", "#{unquote(expected)}"})
    end
  end

  test "without a setting MLX's variables are left alone" do
    assert {output, 0} =
             elixir("IO.inspect(Emily.Native.Environment.variables())", [
               {"MLX_PTX_CACHE_DIR", "/tmp/own"}
             ])

    assert output =~ "[]"
  end

  test "another precision is refused by name" do
    script =
      "Application.put_env(:emily, :matmul_precision, :half); Emily.Native.devices() |> IO.inspect()"

    assert {output, 1} = elixir(script)
    assert output =~ "config :emily, :matmul_precision takes :tf32 or :f32, got: :half"
  end

  test "an application starts and stops fifty times in one VM" do
    script = """
    Logger.configure(level: :error)

    for i <- 1..50 do
      {:ok, _} = Application.ensure_all_started(:emily)
      [x] = Emily.Native.run([{:sum, {:full, [i, 2], 1.0, :f32}, [0, 1], false}])
      <<sum::float-32-native>> = Emily.Native.to_binary(x)
      ^sum = 2.0 * i
      :ok = Application.stop(:emily)
    end

    IO.puts("all fifty")
    """

    assert {output, 0} = elixir(script)
    assert output =~ "all fifty"
  end
end
