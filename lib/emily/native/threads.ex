defmodule Emily.Native.Threads do
  @moduledoc false
  # How many threads compute a product of matrices together: the setting, and what the native library takes for it.

  @most 1024

  @doc "The setting `config :emily, threads: ...`."
  def configured,
    do: Application.get_env(:emily, :threads, :all) |> check("config :emily, :threads")

  @doc "The setting if it is one; raises an `ArgumentError` that names `what` otherwise."
  def check(threads, what) do
    if threads == :all or (is_integer(threads) and threads in 1..@most) do
      threads
    else
      raise ArgumentError,
            "#{what} takes :all or a number from 1 to #{@most}, got: #{inspect(threads)}"
    end
  end

  @doc "The setting as the native library takes it."
  def count(:all), do: 0
  def count(threads), do: threads
end
