defmodule Emily.PackageTest do
  # A project that depends on Emily, and on more packages later: Emily finds them without being compiled again.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  # Mix compiles Emily here.
  @moduletag timeout: 600_000

  # Packages of a module each, in the place of those that are large.
  @small [axon: "Axon", bumblebee: "Bumblebee"]

  defp mix_exs(folder) do
    paths = Mix.Project.deps_paths()
    deps = for app <- [:nx, :complex, :telemetry], do: {app, path: paths[app], override: true}
    jason = {:jason, path: paths[:jason] || "none", override: true}
    small = for {app, _} <- @small, do: {app, path: Path.join(folder, "#{app}"), override: true}
    deps = [{:emily, path: File.cwd!()} | deps]

    """
    defmodule Reader.MixProject do
      use Mix.Project

      def project, do: [app: :reader, version: "0.1.0", deps: deps(System.get_env("READER"))]

      defp deps(nil), do: #{inspect(deps)}
      defp deps("jason"), do: deps(nil) ++ [#{inspect(jason)}]
      defp deps("all"), do: deps("jason") ++ #{inspect(small)}
    end
    """
  end

  # What the project says of each function that needs a package: what it raises for a file that is not there.
  @asked """
  for {name, fun} <- [
        read: fn -> Emily.Safetensors.read!("none") end,
        load_model: fn -> Emily.Safetensors.load_model("none") end,
        load_bumblebee: fn -> Emily.GGUF.load_bumblebee("none") end,
        apply: fn -> Emily.Bumblebee.FastKernels.apply(:no_model) end
      ] do
    try do
      fun.()
    rescue
      error -> IO.puts("\#{name}: \#{inspect(error.__struct__)}: \#{String.slice(Exception.message(error), 0, 150)}")
    end
  end
  """

  defp ask(folder, packages) do
    env = [{"READER", packages}, {"EMILY_CHECKOUTS", nil}, {"MIX_ENV", "dev"}]
    options = [cd: folder, env: env, stderr_to_stdout: true]
    {output, status} = System.cmd("mix", ["run", "--no-start", "-e", @asked], options)
    assert status == 0, output
    output
  end

  test "packages are found when they come", %{tmp_dir: folder} do
    File.write!(Path.join(folder, "mix.exs"), mix_exs(folder))

    # As they are compiled already. Telemetry is compiled anew: Mix notes the files of Erlang's modules with their whole
    # paths, and would remove those that it was copied from.
    for app <- ~w(nx complex) do
      built = Path.join(folder, "_build/dev/lib/#{app}")
      File.mkdir_p!(Path.dirname(built))
      File.cp_r!(Path.join(Mix.Project.build_path(), "lib/#{app}"), built)
    end

    for {app, module} <- @small do
      File.mkdir_p!(Path.join(folder, "#{app}/lib"))
      File.write!(Path.join(folder, "#{app}/lib/#{app}.ex"), "defmodule #{module} do\nend\n")

      File.write!(Path.join(folder, "#{app}/mix.exs"), """
      defmodule #{module}.MixProject do
        use Mix.Project
        def project, do: [app: :#{app}, version: "0.8.0"]
      end
      """)
    end

    output = ask(folder, nil)

    for {name, packages} <- [
          {"read: ArgumentError: Emily.Safetensors.read!/2", "the package jason"},
          {"load_model: ArgumentError: Emily.Safetensors.load_model/2",
           "the package bumblebee, the package axon, the package jason"},
          {"load_bumblebee: ArgumentError: Emily.GGUF.load_bumblebee/2",
           "the package bumblebee, the package axon, the package jason"}
        ],
        do: assert(output =~ "#{name} needs what the project does not depend on: #{packages}\n")

    assert output =~ "apply: ArgumentError: Emily.Bumblebee.FastKernels.apply/2 expects"
    refute output =~ ~r/warning:.*Emily/

    if Mix.Project.deps_paths()[:jason] do
      output = ask(folder, "jason")
      assert output =~ "read: File.Error"

      assert output =~
               "load_model/2 needs what the project does not depend on: the package bumblebee, the package axon\n"

      output = ask(folder, "all")
      assert output =~ "read: File.Error"
      assert output =~ "load_bumblebee: File.Error"
      # Emily asks Bumblebee, whose module here is empty.
      assert output =~ "load_model: UndefinedFunctionError: function Bumblebee.load_spec/2"
    end
  end

  test "what is compiled does not depend on what is there" do
    for path <- Path.wildcard("lib/**/*.ex"), path != "lib/emily/package.ex" do
      refute File.read!(path) =~
               ~r/ensure_(loaded|compiled)[?!]?\(?(Axon|Bumblebee|Jason|Kino|Tokenizers)/,
             path
    end
  end
end
