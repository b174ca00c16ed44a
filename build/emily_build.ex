defmodule Emily.Build do
  @moduledoc false
  # Builds the native part of Emily and fills the application's priv/. Loaded by mix.exs, since it has to
  # run before the project is compiled; never part of the application.

  alias Emily.Build.{Cache, Command, Failure, Mlx, Nif, Notices, Openblas, Precompiled, Record}

  @root Path.dirname(__DIR__)
  @native Path.join(@root, "native")

  @doc "Builds what has changed. Returns `:ok`, or `:noop` if all was there."
  def run(app_path, manifest) do
    Mix.ensure_application!(:crypto)
    variant = Mlx.variant()
    archive = Precompiled.find(@root, Mix.Project.config()[:version], variant)
    priv = Path.join(app_path, "priv")
    {inputs, folders} = if archive, do: fetched(archive), else: built(variant)
    state = hash({inputs, variant, Cache.root()})

    if built?(priv, manifest, state) do
      :noop
    else
      Mlx.check_system()
      folders = folders.()
      Failure.files("fill #{priv}", fn -> fill(priv, folders) end)
      File.mkdir_p!(Path.dirname(manifest))
      File.write!(manifest, [state, "\n", Record.of(priv)])
      Mix.shell().info("emily: built for MLX #{Mlx.version()} (#{variant})")
      :ok
    end
  end

  # What priv/ is made of, and a function that gives the folders that hold it.
  defp fetched(archive), do: {archive, fn -> [Precompiled.fetch(archive)] end}

  defp built(variant) do
    # What the library is compiled for tells it from others, as its sources do.
    sources = [{"triple", Mlx.triple()} | Nif.sources(@native)]
    # macOS has a BLAS of its own.
    openblas = if not Mlx.macos?(), do: Openblas.find()

    folders = fn ->
      if openblas == nil and not Mlx.macos?(), do: Openblas.warn_missing()
      Cache.lock("build", fn -> build(sources, variant, openblas) end)
    end

    {{fingerprint(sources), Openblas.key(openblas)}, folders}
  end

  # The manifest has what priv/ was built of, and what is in it.
  defp built?(priv, manifest, state) do
    with {:ok, text} <- File.read(manifest),
         [^state, record] <- String.split(text, "\n", parts: 2),
         true <- File.dir?(priv) do
      %{mtime: written} = File.stat!(manifest, time: :posix)
      damage = Record.damage(priv, record, written)
      if damage, do: Mix.shell().info("emily: #{priv} is damaged and filled again: #{damage}")
      damage == nil
    else
      _ -> false
    end
  end

  defp hash(term),
    do: :crypto.hash(:sha256, :erlang.term_to_binary(term)) |> Base.encode16(case: :lower)

  defp fingerprint(sources) do
    own = for file <- Path.wildcard(Path.join(__DIR__, "*.ex")), do: File.read!(file)
    hash({sources, own})
  end

  defp build(sources, variant, openblas) do
    System.find_executable("cargo") ||
      Failure.stop("cargo (Rust) is not there.", Failure.install("rust"))

    linker = [triple: Mlx.triple(), linker: Mlx.compiler()]
    libraries = Path.join(Mlx.libraries(Mlx.common(), openblas), "mlx/lib")
    write_config(linker ++ [prepared: prepared(linker), libraries: libraries] ++ kernels())
    notices = Notices.folder(variant, openblas)
    [Mlx.libraries(variant, openblas), notices, Nif.built(sources, products(), &cargo/2)]
  end

  # Emily's own kernels take the place of MLX's on Linux alone.
  defp kernels, do: if(Mlx.macos?(), do: [], else: [include: Mlx.include()])

  # Where cargo puts what it compiles: for a target that is named, in a folder of its own.
  defp products, do: Path.join(Nif.target(@native), System.get_env("CARGO_BUILD_TARGET") || "")

  defp prepared(linker) do
    Mlx.prepared(@native, fn arguments, env ->
      write_config(linker)
      cargo(arguments, env)
    end)
  end

  # The new folder is filled beside the old one, so that a VM that runs from the old one keeps its files.
  defp fill(priv, folders) do
    new = priv <> ".new"
    File.rm_rf!(new)
    File.mkdir_p!(new)

    for folder <- folders,
        name <- File.ls!(folder),
        name != Record.name(),
        do: Cache.link(Path.join(folder, name), Path.join(new, name))

    File.rm_rf!(priv)
    File.rename!(new, priv)
  end

  # In a checkout of Emily the configuration goes where plain `cargo` and editors find it; as a package
  # in somebody's project its sources stay as they are. That of another machine stands beside it.
  defp write_config(options) do
    text = Nif.cargo_config([target: Nif.target(@native)] ++ options)
    file = config_file()

    Failure.files("write #{file}", fn ->
      if File.read(file) != {:ok, text} do
        File.mkdir_p!(Path.dirname(file))
        File.write!(file, text)
      end
    end)
  end

  defp checkout?, do: File.exists?(Path.join(@root, ".git"))

  defp config_file do
    cond do
      Mlx.cross?() -> Cache.path("cargo-#{Mlx.triple()}.toml")
      checkout?() -> Path.join(@native, ".cargo/config.toml")
      true -> Cache.path("cargo.toml")
    end
  end

  defp cargo(arguments, env) do
    found? = String.starts_with?(config_file(), @native)
    options = if found?, do: [], else: ["--config", config_file()]

    {output, status} =
      Command.run("cargo", options ++ arguments, cd: @native, env: env, show: true)

    status == 0 || Failure.program("cargo #{hd(arguments)}", "cargo", output, status)
    :ok
  end
end
