Code.require_file("support/server.exs", __DIR__)

defmodule Emily.Build.PackageTest do
  # What Hex packs, alone in a folder, as a dependency of an empty project.
  use ExUnit.Case, async: true

  alias Emily.Build.Precompiled

  @moduletag :tmp_dir
  # Mix compiles Emily here.
  @moduletag timeout: 600_000

  @mix_exs """
  defmodule Reader.MixProject do
    use Mix.Project

    def project, do: [app: :reader, version: "0.1.0", deps: [{:emily, path: "emily"}]]
  end
  """

  @code "[x] = Emily.Native.run([{:full, [], 3, :s32}]); IO.inspect({:item, Emily.Native.item(x)})"

  # What the VM and Mix are started with.
  @programs ~w(elixir mix erl sh dirname basename readlink sed expr cat uname getconf)

  setup %{tmp_dir: folder} do
    for file <- packed(), not File.dir?(file) do
      target = Path.join([folder, "emily", file])
      File.mkdir_p!(Path.dirname(target))
      File.cp!(file, target)
    end

    File.write!(Path.join(folder, "mix.exs"), @mix_exs)
    {:ok, emily: Path.join(folder, "emily")}
  end

  defp packed do
    for pattern <- Mix.Project.config()[:package][:files],
        path <- Path.wildcard(pattern, match_dot: true),
        file <- [path | Path.wildcard(path <> "/**", match_dot: true)],
        do: file
  end

  defp run(folder, env) do
    output = mix(folder, ["run", "-e", @code], env)
    assert output =~ "{:item, 3}"
    output
  end

  defp mix(folder, arguments, env \\ []) do
    env = [{"EMILY_NO_NX", "1"}, {"MIX_ENV", "prod"}, {"MIX_BUILD_PATH", nil} | env]
    {output, status} = System.cmd("mix", arguments, cd: folder, env: env, stderr_to_stdout: true)
    assert status == 0, output
    output
  end

  test "compiles by itself, and runs", %{tmp_dir: folder, emily: emily} do
    before = files(emily)
    run(folder, [])

    # It is built of the same sources, and leaves them as they are.
    native = Path.join(emily, "native")
    assert Emily.Build.Nif.sources(native) == Emily.Build.Nif.sources(Path.expand("native"))
    assert files(emily) == before

    # A command that builds nothing does not compile the build either.
    loaded =
      "IO.inspect(for name <- [Files, Mlx], do: Code.ensure_loaded?(Module.concat(Emily.Build, name)))"

    assert mix(folder, ["run", "--no-compile", "-e", loaded]) =~ "[true, false]"
    assert mix(folder, ["emily.doctor"]) =~ ~r/^ok +build tools +Rust/m
  end

  defp files(folder),
    do: folder |> Path.join("**") |> Path.wildcard(match_dot: true) |> Enum.sort()

  test "needs no tools where its release has what it would build", context do
    %{tmp_dir: folder, emily: emily} = context
    archives = Path.join(folder, "archives")
    priv = Path.join(Mix.Project.app_path(), "priv")
    version = Mix.Project.config()[:version]
    file = Precompiled.pack(priv, version, Emily.Build.Mlx.variant(), archives)

    url =
      Emily.BuildServer.start(fn _path, _headers -> Emily.BuildServer.ok(File.read!(file)) end)

    Precompiled.write_checksums(emily, url, archives)

    # No Rust, no C++ compiler, no Python.
    programs = Path.join(folder, "programs")
    File.mkdir_p!(programs)

    for name <- @programs,
        path = System.find_executable(name),
        do: File.ln_s!(path, Path.join(programs, name))

    cache = Path.join(folder, "cache")
    output = run(folder, [{"PATH", programs}, {"EMILY_CACHE", cache}, {"EMILY_BUILD", nil}])
    assert output =~ "fetching #{Path.basename(file)}"
    assert File.ls!(cache) == ["precompiled"]
  end

  test "has the files that its documentation is made of" do
    config = Mix.Project.config()
    for extra <- config[:docs][:extras], do: assert(extra in packed(), extra)
    for file <- ~w(LICENSE README.md CHANGELOG.md mix.exs), do: assert(file in packed(), file)
  end
end
