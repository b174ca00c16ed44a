defmodule Emily.Build.PackageTest do
  # What Hex packs, alone in a folder, as a dependency of an empty project.
  use ExUnit.Case, async: true

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

  test "compiles by itself, and runs", %{tmp_dir: folder} do
    package = Mix.Project.config()[:package]
    files = Enum.flat_map(package[:files], &Path.wildcard(&1, match_dot: true))
    for file <- ~w(LICENSE README.md CHANGELOG.md), do: assert(file in files)

    for file <- files do
      target = Path.join([folder, "emily", file])
      File.mkdir_p!(Path.dirname(target))
      File.cp_r!(file, target)
    end

    File.write!(Path.join(folder, "mix.exs"), @mix_exs)
    before = sources(folder)
    env = [{"EMILY_NO_NX", "1"}, {"MIX_ENV", "prod"}, {"MIX_BUILD_PATH", nil}]
    options = [cd: folder, env: env, stderr_to_stdout: true]
    {output, status} = System.cmd("mix", ["run", "-e", @code], options)
    assert status == 0, output
    assert output =~ "{:item, 3}"

    # It is built of the same sources, and leaves them as they are.
    native = Path.expand("native")

    assert Emily.Build.Nif.sources(Path.join(folder, "emily/native")) ==
             Emily.Build.Nif.sources(native)

    assert sources(folder) == before
  end

  defp sources(folder),
    do: folder |> Path.join("emily/**") |> Path.wildcard(match_dot: true) |> Enum.sort()

  test "has the files that its documentation is made of" do
    config = Mix.Project.config()
    packed = Enum.flat_map(config[:package][:files], &Path.wildcard/1)

    for extra <- config[:docs][:extras],
        do: assert(extra in packed or Path.dirname(extra) in packed, extra)
  end
end
