# The settings of this checkout alone: a project that depends on Emily has its own.
import Config

# Nothing leaves MLX unless a test says so.
if config_env() == :test, do: config(:emily, fallback: :raise)
