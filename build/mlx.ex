defmodule Emily.Build.Mlx do
  @moduledoc false
  # MLX: the prebuilt library of the chosen variant, on Linux with a fast BLAS beside it, and what mlx-sys needs to be
  # compiled against it.

  alias Emily.Build.{Cache, Command, Failure, Openblas, Wheel}

  # The mlx-sys crate of native/Cargo.toml is made for 0.32.2; native/mlx_prep says what it takes to compile against this.
  @version "0.32.4"
  @glibc "2.35"
  @macos "14.0"

  @wheels %{
    {"metal", "aarch64"} => "8019b2db622599267d66cc168b2f0dbf5af929790a6c3b3913e00eabc42a7947",
    {"cpu", "x86_64"} => "0e0a24fa2ce8b6b94d2e6a90604e8813aa8e29fcb918bb2aa01cfb6d133d8cee",
    {"cpu", "aarch64"} => "1289e85e64af1fd16380bf331438bfe4afe875d27afc3e0bcf35f427c488fadd",
    {"cuda12", "x86_64"} => "f385c7af7c1f63a9d6ce3e442e1c9ba881c881bcb45c6534ff8155b359da47e5",
    {"cuda12", "aarch64"} => "cea869b007c809013c369819d485e3b534f3ecc261199b4c655ef92a21f73f28",
    {"cuda13", "x86_64"} => "94cb48fba73e5ee39467e51c35c51c691123359ca17bafd1a24cf92ad6732bee",
    {"cuda13", "aarch64"} => "cf8a67b49cebff85cd98b1d118c09f6c8ee966b899a914c50cc74d614b25616e"
  }
  @packages %{
    "metal" => "mlx-metal",
    "cpu" => "mlx-cpu",
    "cuda12" => "mlx-cuda-12",
    "cuda13" => "mlx-cuda-13"
  }
  @variants ~w(cpu cuda12 cuda13)

  @doc """
  The variant to build with. macOS has one; on Linux it is asked for by `EMILY_MLX`, else by `config :emily, :mlx`, and
  is `cpu` else.
  """
  def variant, do: if(macos?(), do: "metal", else: asked())

  defp asked do
    {asked, by} =
      case System.get_env("EMILY_MLX") do
        empty when empty in [nil, ""] ->
          {Application.get_env(:emily, :mlx, :cpu), "config :emily, :mlx"}

        name ->
          {name, "EMILY_MLX"}
      end

    if to_string(asked) in @variants,
      do: to_string(asked),
      else: Failure.stop("#{by} is #{inspect(asked)}.", "Set it to cpu, cuda12 or cuda13.")
  end

  @doc "The variant that the NIF is compiled against for all of a system, which share one binary interface."
  def common, do: if(macos?(), do: "metal", else: "cpu")

  def version, do: @version

  @doc "The oldest glibc that the prebuilt MLX runs on."
  def glibc, do: @glibc

  @doc "The oldest macOS that it runs on."
  def macos, do: @macos

  @doc "What is built for, as Rust names it: cargo's `CARGO_BUILD_TARGET`, or this machine."
  def triple do
    case System.get_env("CARGO_BUILD_TARGET") do
      empty when empty in [nil, ""] -> own_triple()
      target -> target
    end
  end

  @doc "The architecture to build for, as Rust names it."
  def arch, do: triple() |> String.split("-") |> hd()

  @doc "Whether macOS is built for, and not Linux."
  def macos?, do: String.ends_with?(triple(), "-apple-darwin")

  @doc "Whether another machine than this one is built for."
  def cross?, do: triple() != own_triple()

  defp own_triple do
    arch =
      :erlang.system_info(:system_architecture) |> to_string() |> String.split("-") |> hd()

    case :os.type() do
      {:unix, :darwin} -> "#{arch}-apple-darwin"
      _ -> "#{arch}-unknown-linux-gnu"
    end
  end

  @doc "Ends the build where the prebuilt MLX cannot run."
  def check_system do
    if not is_map_key(@wheels, {common(), arch()}) do
      Failure.stop(
        "there is no prebuilt MLX for #{triple()}.",
        "Use Linux on x86-64 or aarch64, or macOS on Apple silicon."
      )
    end

    if macos?(), do: cross?() || check_macos(), else: check_glibc()
  end

  defp check_macos do
    found = Command.output("sw_vers", ["-productVersion"]) || "none"

    if not at_least?(found, @macos) do
      Failure.stop(
        "the prebuilt MLX needs macOS #{@macos} or newer; this is #{found}.",
        "Update macOS."
      )
    end
  end

  defp check_glibc do
    libc = Command.output("getconf", ["GNU_LIBC_VERSION"])

    with "glibc " <> version <- libc || "none",
         true <- glibc_enough?(version) do
      :ok
    else
      _ ->
        Failure.stop(
          "the prebuilt MLX needs glibc #{@glibc} or newer; this system has #{libc || "another C library"}.",
          "Use Debian 12, Ubuntu 22.04, Fedora 36 or newer."
        )
    end
  end

  def glibc_enough?(version), do: at_least?(version, @glibc)

  defp at_least?(version, least), do: numbers(version) >= numbers(least)

  # The first two; none of what is no version.
  defp numbers(version) do
    for part <- version |> String.split(".") |> Enum.take(2),
        {number, _} <- [Integer.parse(part)],
        do: number
  end

  @doc "The folder of the variant's wheel."
  def wheel(variant) do
    Wheel.fetch("mlx", %{
      name: Map.fetch!(@packages, variant),
      version: @version,
      sha256: Map.fetch!(@wheels, {variant, arch()}),
      platform: platform(variant, arch())
    })
  end

  @doc "The wheels of all systems, each with its hash."
  def wheels do
    for {{variant, arch}, sha256} <- @wheels,
        do: %{name: @packages[variant], sha256: sha256, platform: platform(variant, arch)}
  end

  # Rust's aarch64 is arm64 to Apple.
  defp platform("metal", _arch), do: "macosx_14_0_arm64"
  defp platform(_variant, arch), do: "manylinux_2_35_#{arch}"

  @doc """
  The folder to copy into `priv/`: `mlx/lib` with MLX, the libraries it finds by its own relative RPATH, and licences. On Linux BLAS
  and LAPACK are among these, OpenBLAS's; on macOS `mlx.metallib` is beside MLX.
  """
  def libraries(variant) do
    blas = if macos?(), do: [], else: [Openblas.key()]
    key = Enum.join([variant, @version, arch() | blas], "-")

    Cache.entry(["libraries", key], fn temporary ->
      wheel = wheel(variant)
      File.mkdir_p!(Path.join(temporary, "mlx"))
      Cache.link(Path.join(wheel, "mlx/lib"), Path.join(temporary, "mlx/lib"))

      # CUDA kernels are compiled when first used, against headers that MLX looks up beside its lib/.
      for folder <- ~w(cccl cutlass cute),
          source = Path.join([wheel, "mlx/include", folder]),
          File.dir?(source) do
        File.mkdir_p!(Path.join(temporary, "mlx/include"))
        Cache.link(source, Path.join([temporary, "mlx/include", folder]))
      end

      for folder <- [wheel | if(macos?(), do: [], else: [Openblas.wheel()])],
          licenses <- Path.wildcard(Path.join(folder, "*.dist-info/licenses")),
          [name, _] =
            licenses |> Path.dirname() |> Path.basename() |> String.split("-", parts: 2),
          do: Cache.link(licenses, Path.join([temporary, "licenses", name]))

      # macOS's wheel bundles none: the system has a BLAS.
      for bundled <- Path.wildcard(Path.join(wheel, "*.libs")),
          do: Openblas.bundle(bundled, Path.join(temporary, Path.basename(bundled)))
    end)
  end

  @doc "MLX's headers."
  def include, do: Path.join(wheel(common()), "mlx/include")

  @doc "The folder with `libmlxc.a` and `bindings.rs`, made by `native/mlx_prep` when not in the cache."
  def prepared(native, cargo) do
    Cache.entry(["prepared", prepared_key(native)], fn temporary ->
      Mix.shell().info("emily: compiling mlx-c for mlx-sys, once (minutes on two cores)")

      include = include()
      compiler = compiler()

      # The program itself runs here.
      host = if cross?(), do: [{"CARGO_BUILD_TARGET", own_triple()}], else: []

      cargo.(
        ~w(run --profile prep --locked --package mlx_prep --) ++
          [native, include, temporary, triple()],
        [{"CXX", compiler} | host]
      )
    end)
  end

  defp prepared_key(native) do
    sources =
      for file <- ["mlx_prep/Cargo.toml", "mlx_prep/src/main.rs"],
          do: File.read!(Path.join(native, file))

    [_, mlx_sys] =
      Regex.run(
        ~r/name = "mlx-sys"\nversion = "(.*?)"/,
        File.read!(Path.join(native, "Cargo.lock"))
      )

    hash = :crypto.hash(:sha256, sources) |> Base.encode16(case: :lower) |> binary_part(0, 12)
    "#{mlx_sys}-#{@version}-#{triple()}-#{hash}"
  end

  @doc "The C++ compiler: `CXX`, or on Linux the newest g++ of version 13 or more, on macOS `c++`."
  def compiler do
    case System.get_env("CXX") do
      empty when empty in [nil, ""] -> if macos?(), do: clang(), else: gcc()
      compiler -> compiler
    end
  end

  defp clang do
    (not cross?() && System.find_executable("c++")) ||
      Failure.stop("there is no C++ compiler for #{triple()}.", Failure.install("compiler"))
  end

  defp gcc do
    # Debian's names of compilers for other machines.
    prefix = if cross?(), do: "#{arch()}-linux-gnu-", else: ""
    names = for name <- ~w(g++-16 g++-15 g++-14 g++-13 g++), do: prefix <> name

    Enum.find(names, &gcc_enough?/1) ||
      Failure.stop(
        "there is no #{prefix}g++ of version 13 or newer (mlx-c uses std::format).",
        Failure.install("compiler")
      )
  end

  defp gcc_enough?(program) do
    with version when is_binary(version) <- Command.output(program, ["-dumpversion"]),
         {major, _} <- Integer.parse(version) do
      major >= 13
    else
      _ -> false
    end
  end
end
