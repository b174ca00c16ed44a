defmodule Emily.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    # A wrong setting ends the start, rather than the loading of the native library later.
    _ = Emily.Native.Threads.configured()
    _ = Emily.Native.Environment.matmul_precision()
    children = [Emily.Compiler.Cache, Emily.Compiler.CodeVersion]
    Supervisor.start_link(children, strategy: :one_for_one, name: Emily.Supervisor)
  end
end
