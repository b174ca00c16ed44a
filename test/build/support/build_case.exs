defmodule Emily.BuildCase do
  # A cache of its own, an environment that is put back, and the message that ends a build.
  use ExUnit.CaseTemplate

  using do
    quote do
      import Emily.BuildCase
      @moduletag :tmp_dir
    end
  end

  setup %{tmp_dir: folder} do
    Mix.ensure_application!(:crypto)
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Quiet)
    put_env("EMILY_CACHE", Path.join(folder, "cache"))
    on_exit(fn -> Mix.shell(shell) end)
    {:ok, programs: folder |> Path.join("programs") |> tap(&File.mkdir_p!/1)}
  end

  def put_env(name, value) do
    before = System.get_env(name)
    System.put_env(name, value)
    on_exit(fn -> if before, do: System.put_env(name, before), else: System.delete_env(name) end)
  end

  @doc "The only programs that the code under test finds are these."
  def only_programs(folder, scripts) do
    for {name, script} <- scripts do
      file = Path.join(folder, name)
      File.write!(file, "#!/bin/sh\n" <> script)
      File.chmod!(file, 0o755)
    end

    put_env("PATH", folder)
  end

  def failure(fun), do: Exception.message(assert_raise(Mix.Error, fun))
end
