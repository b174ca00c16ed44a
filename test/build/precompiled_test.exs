Code.require_file("support/build_case.exs", __DIR__)
Code.require_file("support/server.exs", __DIR__)

defmodule Emily.Build.PrecompiledTest do
  # The environment belongs to the whole VM.
  use Emily.BuildCase, async: false

  import Emily.BuildServer, only: [ok: 1, response: 3]
  alias Emily.{Build.Cache, Build.Precompiled, BuildServer}

  setup %{tmp_dir: folder} do
    for name <- ~w(EMILY_BUILD HTTP_PROXY http_proxy), do: put_env(name, "")
    put_env("CARGO_BUILD_TARGET", "x86_64-unknown-linux-gnu")
    priv = Path.join(folder, "priv")

    for {name, text} <- [{"libemily_nif.so", "a library"}, {"mlx/lib/libmlx.so", "MLX"}] do
      file = Path.join(priv, name)
      File.mkdir_p!(Path.dirname(file))
      File.write!(file, text)
    end

    archives = Path.join(folder, "archives")
    for variant <- ~w(cpu cuda12), do: Precompiled.pack(priv, "1.2.3", variant, archives)
    {:ok, archives: archives, root: folder}
  end

  # A release with these archives, which are answered by `answer`, a function of one's bytes.
  defp released(%{archives: archives, root: root}, answer \\ &ok/1) do
    url =
      BuildServer.start(fn path, _headers ->
        archives |> Path.join(Path.basename(path)) |> File.read!() |> answer.()
      end)

    Precompiled.write_checksums(root, url, archives)
    url
  end

  defp found(root), do: Precompiled.find(root, "1.2.3", "cpu")

  test "archives have the names of rustler_precompiled" do
    assert Precompiled.name("1.2.3", "cpu") ==
             "libemily_nif-v1.2.3-nif-2.15-x86_64-unknown-linux-gnu.tar.gz"

    assert Precompiled.name("1.2.3", "cuda12") ==
             "libemily_nif-v1.2.3-nif-2.15-x86_64-unknown-linux-gnu--cuda12.tar.gz"

    put_env("CARGO_BUILD_TARGET", "aarch64-apple-darwin")

    assert Precompiled.name("1.2.3", "metal") ==
             "libemily_nif-v1.2.3-nif-2.15-aarch64-apple-darwin.tar.gz"
  end

  test "holds all that was packed, and is fetched once", %{root: root} = context do
    url = released(context)
    folder = root |> found() |> Precompiled.fetch()
    assert File.read!(Path.join(folder, "libemily_nif.so")) == "a library"
    assert File.read!(Path.join(folder, "mlx/lib/libmlx.so")) == "MLX"
    assert folder |> File.ls!() |> Enum.sort() == ["RECORD", "libemily_nif.so", "mlx"]

    BuildServer.stop(url)
    assert root |> found() |> Precompiled.fetch() == folder
  end

  test "is taken where the release has it alone", %{root: root} = context do
    assert found(root) == nil
    released(context)
    assert found(root).name == Precompiled.name("1.2.3", "cpu")
    assert Precompiled.find(root, "1.2.3", "cuda13") == nil
    assert Precompiled.find(root, "1.2.4", "cpu") == nil
    put_env("EMILY_BUILD", "1")
    assert found(root) == nil
  end

  test "nothing is packed that the oldest system lacks", %{root: root, programs: programs} do
    pack = fn -> Precompiled.pack(Path.join(root, "priv"), "1.2.4", "cpu", root) end
    says = fn text -> only_programs(programs, %{"readelf" => "echo '#{text}'"}) end

    says.(
      "Name: GLIBC_2.35  Flags: none  Name: GLIBCXX_3.4.30 Name: CXXABI_1.3.13 Name: GCC_12.0.0"
    )

    assert File.regular?(pack.())

    for newer <- ~w(GLIBC_2.36 GLIBC_3.0 GLIBCXX_3.4.31 CXXABI_1.3.15 GCC_13.0.0) do
      says.("Name: GLIBC_2.34  Flags: none  Name: #{newer}")
      assert failure(pack) =~ "libemily_nif.so asks for #{newer}"
    end

    only_programs(Path.join(programs, "none"), %{})
    assert failure(pack) =~ "Install binutils"
  end

  describe "ends with one message:" do
    defp message(root) do
      message = failure(fn -> root |> found() |> Precompiled.fetch() end)
      assert message =~ "EMILY_BUILD=1"
      assert File.ls!(Cache.path("precompiled")) == []
      message
    end

    test "another archive than the expected one", %{root: root, archives: archives} = context do
      released(context)
      File.write!(Path.join(archives, found(root).name), "another")
      other = :crypto.hash(:sha256, "another") |> Base.encode16(case: :lower)
      assert message(root) =~ ~r/#{found(root).name} is not the expected one.*#{other}/s
    end

    test "none", %{root: root} = context do
      url = released(context, fn _ -> response("404 Not Found", [], "no") end)

      assert message(root) =~
               "could not download #{url}/#{found(root).name}: the server answers 404"
    end

    test "half of it", %{root: root} = context do
      released(context, fn bytes ->
        whole = ok(bytes)
        binary_part(whole, 0, byte_size(whole) - 100)
      end)

      assert message(root) =~ "the connection was closed"
    end

    test "what is no archive", %{root: root, archives: archives} = context do
      file = Path.join(archives, Precompiled.name("1.2.3", "cpu"))
      File.write!(file, "no archive")
      released(context)
      assert message(root) =~ "could not unpack #{Path.basename(file)}"
    end
  end
end
