defmodule Emily.ReleaseTest do
  # A release of a project that depends on Emily, with OTP within it and nothing of Mix.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  # Mix compiles Emily here.
  @moduletag timeout: 600_000

  @mix_exs """
  defmodule Released.MixProject do
    use Mix.Project

    def project, do: [app: :released, version: "0.1.0", deps: [{:emily, path: EMILY}]]
  end
  """

  defp run(program, arguments, options) do
    {output, status} = System.cmd(program, arguments, [stderr_to_stdout: true] ++ options)
    assert status == 0, output
    output
  end

  test "the doctor runs in it", %{tmp_dir: folder} do
    mix_exs = String.replace(@mix_exs, "EMILY", inspect(File.cwd!()))
    File.write!(Path.join(folder, "mix.exs"), mix_exs)
    release = Path.join(folder, "release")

    env = [{"EMILY_NO_NX", "1"}, {"MIX_ENV", "prod"}, {"MIX_BUILD_PATH", nil}]
    run("mix", ["release", "--path", release], cd: folder, env: env)

    # It does not see the project that it was built of.
    program = Path.join(release, "bin/released")
    output = run(program, ["eval", "Emily.Doctor.report()"], cd: System.tmp_dir!())
    assert output =~ ~r/^ok +kernels +cpu: product/m
    assert output =~ ~r/^ok +MLX +/m
    refute output =~ "cannot be told"
    refute output =~ "build tools"
    refute output =~ "FAILED  "

    # What the release lacks has a remedy that can be followed: where it was made.
    File.rm!(Path.wildcard(Path.join(release, "lib/emily-*/priv/libemily_nif.so")) |> hd())
    output = run(program, ["eval", "Emily.Doctor.report()"], cd: System.tmp_dir!())

    assert output =~
             ~r/^FAILED +libraries +priv\/ has no libemily_nif.so\n +-> .*where the release is made/m
  end
end
