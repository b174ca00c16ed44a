defmodule Emily.MixProject do
  use Mix.Project

  # The build of the native part is no part of the application, so it stands outside of lib/. Every command of a project
  # that depends on Emily reads this file, but builds nothing: there it is loaded when something asks for it.
  Code.require_file("build/tasks.ex", __DIR__)
  if Mix.Project.get() == nil, do: Emily.Build.Files.load()

  @version "0.1.0"

  # What Emily works with. Bumblebee's own requirements are narrower than these.
  @requirements [
    nx: ">= 0.11.0 and < 1.1.0",
    telemetry: "~> 0.4 or ~> 1.0",
    axon: "~> 0.8",
    bumblebee: "~> 0.7.0",
    jason: "~> 1.4",
    safetensors: "~> 0.1.3"
  ]

  @doc "The versions of other packages that Emily works with; some may not be there."
  def requirements, do: @requirements

  def project do
    [
      app: :emily,
      version: @version,
      elixir: "~> 1.17",
      compilers: [:emily_native | Mix.compilers()],
      elixirc_paths: elixirc_paths(Mix.env()),
      test_paths: if(nx?(), do: ["test"], else: ["test/native", "test/build"]),
      build_path: suffixed("_build"),
      deps_path: suffixed("deps"),
      lockfile: suffixed("mix.lock"),
      # Nx's own tests implement its protocols.
      consolidate_protocols: Mix.env() != :test,
      start_permanent: Mix.env() == :prod,
      deps: deps(),
      aliases: [
        "test.nx": "run conformance/nx.exs",
        "test.scholar": "run conformance/scholar.exs"
      ],
      description: "Nx backend, compiler and fused kernels on MLX",
      package: package(),
      source_url: source_url(),
      docs: docs()
    ]
  end

  def cli, do: [preferred_envs: ["test.nx": :test, "test.scholar": :test]]

  def application do
    module = if nx?(), do: [mod: {Emily.Application, []}], else: []
    [extra_applications: [:logger]] ++ module
  end

  # Without Hex and without checkouts there is no Nx: EMILY_NO_NX=1 leaves the part that needs none.
  defp nx?, do: env("EMILY_NO_NX") == nil

  defp elixirc_paths(env) do
    cond do
      not nx?() ->
        Enum.filter(
          ~w(lib/emily/error.ex lib/emily/device.ex lib/emily/native.ex lib/emily/native) ++
            ~w(lib/emily/doctor.ex lib/emily/doctor lib/mix),
          &File.exists?/1
        )

      env == :test ->
        ["lib", "test/support", "attack"]

      true ->
        ["lib"]
    end
  end

  # Each version of Nx, and the build without it, has its own folders.
  defp suffixed(name) do
    cond do
      not nx?() -> name <> "-without-nx"
      version = env("EMILY_NX") -> "#{name}-nx-#{version}"
      true -> name
    end
  end

  defp deps do
    cond do
      not nx?() -> []
      folder = env("EMILY_CHECKOUTS") -> checkouts(Path.expand(folder))
      true -> runtime_deps() ++ development_deps()
    end
  end

  defp runtime_deps do
    # Where these are, what needs them is compiled: loading of models for Bumblebee, and of JSON.
    models = if models?(), do: [{:bumblebee, @requirements[:bumblebee], optional: true}], else: []
    json = [{:jason, @requirements[:jason], optional: true}]
    [nx(env("EMILY_NX")), {:telemetry, @requirements[:telemetry]}] ++ json ++ models
  end

  defp nx(nil), do: {:nx, @requirements[:nx]}
  defp nx("main"), do: {:nx, github: "elixir-nx/nx", branch: "main", sparse: "nx"}
  defp nx(version), do: {:nx, "== #{version}"}

  defp development_deps do
    # Livebooks run without Livebook: what they show is started by those who run them.
    models = [
      {:safetensors, @requirements[:safetensors], only: [:dev, :test]},
      {:kino, "~> 0.14", only: [:dev, :test], runtime: false},
      {:kino_vega_lite, "~> 0.1.13", only: [:dev, :test], runtime: false}
    ]

    [
      {:stream_data, "~> 1.1", only: [:dev, :test]},
      {:telemetry_metrics, "~> 1.0", only: [:dev, :test], runtime: false},
      {:benchee, "~> 1.3", only: :dev},
      {:ex_doc, "~> 0.34", only: :dev, runtime: false}
    ] ++ if(models?(), do: models, else: [])
  end

  # Bumblebee takes Nx 0.12 only.
  defp models?, do: String.starts_with?(env("EMILY_NX") || "0.12", "0.12")

  # Source checkouts, one folder for each application, in the place of Hex packages.
  defp checkouts(root) do
    models = ~w(axon bumblebee castore decimal jason nx_image nx_signal polaris progress_bar
                rustler rustler_precompiled safetensors tokenizers unpickler unzip)a
    # For its own tests; the one needs the other.
    scholar = ~w(scholar nimble_options)a
    scholar? = Enum.all?(scholar, &File.dir?(Path.join(root, checkout_folder(&1))))
    livebooks = ~w(kino kino_vega_lite table vega_lite)a
    documentation = ~w(earmark_parser ex_doc makeup makeup_elixir makeup_erlang nimble_parsec)a

    groups = [
      {~w(nx complex telemetry)a, []},
      {~w(stream_data)a, [only: [:dev, :test]]},
      {~w(telemetry_metrics)a, [only: [:dev, :test], runtime: false]},
      {~w(benchee deep_merge statistex)a, [only: :dev]},
      {documentation, [only: :dev, runtime: false]},
      {if(models?(), do: models, else: []), [only: [:dev, :test]]},
      {if(models?() and scholar?, do: scholar, else: []), [only: :test]},
      {if(models?(), do: livebooks, else: []), [only: [:dev, :test], runtime: false]}
    ]

    for {apps, options} <- groups,
        app <- apps,
        path = Path.join(root, checkout_folder(app)),
        app == :nx or File.dir?(path) do
      {app, [path: path, override: true] ++ options}
    end
  end

  defp checkout_folder(:nx), do: if(version = env("EMILY_NX"), do: "nx-#{version}", else: "nx")
  defp checkout_folder(app), do: to_string(app)

  defp env(name) do
    case System.get_env(name) do
      "" -> nil
      value -> value
    end
  end

  defp package do
    [
      # The name emily belongs to another package.
      name: "emily_mlx",
      licenses: ["Apache-2.0"],
      links:
        if(url = source_url(),
          do: %{"GitHub" => url, "Changelog" => url <> "/blob/main/CHANGELOG.md"},
          else: %{}
        ),
      # The last are of a release, whose workflow makes them.
      files:
        ~w(lib build native/Cargo.toml native/Cargo.lock native/*/Cargo.toml native/*/build.rs native/*/src native/*/cpp) ++
          ~w(native/*/benches guides assets livebooks/*.livemd mix.exs .formatter.exs README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE) ++
          Path.wildcard("checksum-*.exs")
    ]
  end

  # Where it is published from, which GitHub's workflows name.
  defp source_url do
    if repository = env("GITHUB_REPOSITORY"), do: "https://github.com/#{repository}"
  end

  # The pages of the documentation, in their order.
  @pages [
    "Getting to know it": ~w(getting-started devices cheatsheet),
    "Models and servings": ~w(text-generation quantisation serving training performance),
    "What to expect": ~w(migration differences conformance accuracy attack troubleshooting)
  ]

  defp docs do
    # What Hex packs is without some of them.
    extras =
      Enum.filter(~w(README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md), &File.exists?/1)

    guides =
      for {group, names} <- @pages,
          name <- names,
          path <- Path.wildcard("guides/#{name}.{md,cheatmd}"),
          do: {group, path}

    main = if "README.md" in extras, do: "readme", else: "Emily.Backend"

    [
      main: main,
      logo: "assets/logo.svg",
      assets: %{"assets" => "assets"},
      source_ref: "v#{@version}",
      extras: extras ++ Enum.map(guides, &elem(&1, 1)) ++ Path.wildcard("livebooks/*.livemd"),
      groups_for_extras:
        for({group, _} <- @pages, do: {group, for({^group, path} <- guides, do: path)}) ++
          [Livebooks: ~r"livebooks/"],
      groups_for_modules: [
        Nx: [Emily.Backend, Emily.Compiler, Emily.Compiler.Cache, Emily.Fast, Emily.Fallback],
        Models: [
          Emily.Bumblebee.FastKernels,
          Emily.Generation,
          Emily.GGUF,
          Emily.Safetensors,
          ~r"Emily.(GGUF|Safetensors|Quanti)"
        ],
        Training: [~r"Emily.(LoRA|MixedPrecision)"],
        "Looking inside": [
          Emily.Bounds,
          Emily.Doctor,
          Emily.Finite,
          Emily.Profile,
          Emily.Telemetry
        ],
        "MLX without Nx": [Emily, Emily.Memory, Emily.Stream, ~r"Emily.Native"],
        "How it works": [Emily.Expr, Emily.Lower]
      ]
    ]
  end
end
