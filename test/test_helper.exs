# Nothing leaves MLX unless a test says so.
Application.put_env(:emily, :fallback, :raise)
ExUnit.start()
