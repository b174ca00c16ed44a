defmodule Attack.Files.Special do
  @moduledoc false
  # What has a file's name and is none, and files that change while they are read.

  import Attack.Draw

  @kinds [
           :fifo,
           :folder,
           :loop,
           :dangling,
           :zero,
           :null,
           :full,
           :random,
           :tty,
           :memory,
           :socket,
           :empty
         ] ++
           [:sparse, :shrinking, :growing, :gone]

  def draw, do: {pick(@kinds), pick([:gguf, :safetensors])}

  @doc "Makes one; its path."
  def make({kind, like}, state) do
    path = Path.join(state.folder, "special-#{kind}")
    File.rm_rf!(path)
    make(kind, path, state[like])
  end

  defp make(:fifo, path, _) do
    {_, 0} = System.cmd("mkfifo", [path])
    path
  end

  defp make(:folder, path, _), do: with(:ok <- File.mkdir_p(path), do: path)
  defp make(:loop, path, _), do: with(:ok <- File.ln_s(path, path), do: path)
  defp make(:dangling, path, _), do: with(:ok <- File.ln_s(path <> "-nowhere", path), do: path)
  defp make(:zero, _, _), do: "/dev/zero"
  defp make(:null, _, _), do: "/dev/null"
  defp make(:full, _, _), do: "/dev/full"
  defp make(:random, _, _), do: "/dev/urandom"
  defp make(:tty, _, _), do: "/dev/tty"
  defp make(:memory, _, _), do: "/proc/self/mem"

  defp make(:socket, path, _) do
    {:ok, socket} = :gen_tcp.listen(0, ifaddr: {:local, path})
    :gen_tcp.close(socket)
    path
  end

  defp make(:empty, path, _), do: with(:ok <- File.write(path, ""), do: path)

  # Of a length that no memory holds, with holes in the place of numbers.
  defp make(:sparse, path, bytes) do
    File.write!(path, bytes)
    File.open!(path, [:raw, :read, :write], &:file.pwrite(&1, 2 ** 40, <<0>>))
    path
  end

  defp make(:shrinking, path, bytes),
    do: changing(path, bytes, fn -> binary_part(bytes, 0, integer(0, byte_size(bytes))) end)

  defp make(:growing, path, bytes),
    do: changing(path, bytes, fn -> bytes <> :rand.bytes(1000) end)

  defp make(:gone, path, bytes), do: changing(path, bytes, fn -> nil end)

  # Another process writes the file anew, until the case is over.
  defp changing(path, bytes, other) do
    File.write!(path, bytes)

    writer =
      spawn(fn ->
        Stream.repeatedly(fn ->
          case other.() do
            nil -> File.rm(path)
            other -> File.write(path, other)
          end

          Process.sleep(0)
          File.write(path, bytes)
        end)
        |> Stream.run()
      end)

    Process.put(__MODULE__, writer)
    path
  end

  @doc "Ends what a case has started."
  def clean(state) do
    if writer = Process.delete(__MODULE__) do
      monitor = Process.monitor(writer)
      Process.exit(writer, :kill)

      receive do
        {:DOWN, ^monitor, _, _, _} -> :ok
      end
    end

    for path <- Path.wildcard(Path.join(state.folder, "special-*")), do: File.rm_rf!(path)
  end
end
