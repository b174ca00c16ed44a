Code.require_file("support/build_case.exs", __DIR__)
Code.require_file("support/server.exs", __DIR__)

defmodule Emily.Build.WheelTest do
  # PATH and the environment belong to the whole VM.
  use Emily.BuildCase, async: false

  import Emily.BuildServer, only: [ok: 1, redirect: 1, response: 3]
  alias Emily.Build.{Cache, Download, Failure, Index, Wheel}
  alias Emily.BuildServer

  @file_name "a_package-1.0-py3-none-a_platform.whl"

  setup %{tmp_dir: folder} do
    put_env("HOME", Path.join(folder, "home"))

    for name <- ~w(XDG_CONFIG_HOME PIP_CONFIG_FILE HTTP_PROXY http_proxy), do: put_env(name, "")
    :ok
  end

  defp package(sha256 \\ "00"),
    do: %{name: "a-package", version: "1.0", sha256: sha256, platform: "a_platform"}

  defp wheel(files \\ [{~c"a/file.txt", "content"}]) do
    {:ok, {_, archive}} = :zip.create(~c"a.whl", files, [:memory])
    {archive, sha256(archive)}
  end

  defp sha256(text), do: :crypto.hash(:sha256, text) |> Base.encode16(case: :lower)

  # An index with the package, whose file is answered by `file`, a function of the headers.
  defp index(file) do
    address =
      BuildServer.start(fn
        "/simple/a-package/", _headers -> ok(page("../../files/#{@file_name}#sha256=00"))
        "/files/" <> @file_name, headers -> file.(headers)
        _other, _headers -> response("404 Not Found", [], "no")
      end)

    put_env("PIP_INDEX_URL", address <> "/simple")
    address
  end

  defp page(link) do
    ~s(<html><a href="other-1.0-py3-none-any.whl">other</a><br/>\n) <>
      ~s(<a data-requires-python="&gt;=3.9" href="#{link}">#{@file_name}</a></html>)
  end

  defp asked do
    receive do
      {:asked, path, headers} -> [{path, headers} | asked()]
    after
      0 -> []
    end
  end

  defp content(unpacked), do: File.read!(Path.join(unpacked, "a/file.txt"))

  test "is fetched and unpacked once" do
    {archive, sha256} = wheel()
    index(fn _ -> ok(archive) end)
    unpacked = Wheel.fetch("wheels", package(sha256))
    assert content(unpacked) == "content"
    assert File.ls!(unpacked) |> Enum.sort() == ["RECORD", "a"]
    assert [{"/simple/a-package/", %{"accept" => accept}}, {"/files/" <> _, _}] = asked()
    assert accept =~ "text/html"

    assert Wheel.fetch("wheels", package(sha256)) == unpacked
    assert asked() == []
  end

  test "is fetched again where a file of it was changed, by its record" do
    hash = :crypto.hash(:sha256, "content") |> Base.url_encode64(padding: false)
    record = "a/file.txt,sha256=#{hash},7\r\na_package-1.0.dist-info/RECORD,,\r\n"
    files = [{~c"a/file.txt", "content"}, {~c"a_package-1.0.dist-info/RECORD", record}]
    {archive, sha256} = wheel(files)
    index(fn _ -> ok(archive) end)
    unpacked = Wheel.fetch("wheels", package(sha256))
    refute File.exists?(Path.join(unpacked, "RECORD"))

    for text <- ["", "cont", "Content"] do
      File.write!(Path.join(unpacked, "a/file.txt"), text)
      assert Wheel.fetch("wheels", package(sha256)) == unpacked
      assert content(unpacked) == "content"
    end
  end

  test "goes on where the connection broke off" do
    {archive, sha256} = wheel([{~c"a/file.txt", :crypto.strong_rand_bytes(100_000)}])
    size = byte_size(archive)

    index(fn
      %{"range" => "bytes=" <> range} ->
        {at, "-"} = Integer.parse(range)
        rest = binary_part(archive, at, size - at)
        response("206 Partial Content", ["Content-Range: bytes #{at}-#{size - 1}/#{size}"], rest)

      _ ->
        whole = ok(archive)
        binary_part(whole, 0, byte_size(whole) - 60_000)
    end)

    unpacked = Wheel.fetch("wheels", package(sha256))
    assert byte_size(content(unpacked)) == 100_000
    assert [_page, {_, first}, {_, %{"range" => range}}] = asked()
    refute is_map_key(first, "range")
    assert range == "bytes=#{size - 60_000}-"
  end

  test "begins anew with a server that cannot go on" do
    {archive, sha256} = wheel([{~c"a/file.txt", :crypto.strong_rand_bytes(1000)}])
    whole = ok(archive)
    cut = binary_part(whole, 0, byte_size(whole) - 600)

    for refusal <- [ok(archive), response("416 Range Not Satisfiable", [], "no")] do
      first = :counters.new(1, [])

      index(fn headers ->
        :counters.add(first, 1, 1)

        cond do
          :counters.get(first, 1) == 1 -> cut
          is_map_key(headers, "range") -> refusal
          true -> whole
        end
      end)

      assert byte_size(content(Wheel.fetch("wheels-#{sha256(refusal)}", package(sha256)))) == 1000
    end
  end

  test "comes from where the index and its redirections say, which alone see the password" do
    {archive, sha256} = wheel()
    other = BuildServer.start(fn "/there/" <> @file_name, _headers -> ok(archive) end)

    "http://" <> host =
      BuildServer.start(fn
        "/simple/a-package/", _headers -> redirect("/moved/")
        "/moved/", _headers -> ok(page("#{other}/there/#{@file_name}"))
      end)

    put_env("PIP_INDEX_URL", "http://me:p%40ss@#{host}/simple/")
    assert content(Wheel.fetch("wheels", package(sha256))) == "content"
    secret = "Basic " <> Base.encode64("me:p@ss")

    assert [
             {"/simple/a-package/", %{"authorization" => ^secret}},
             {"/moved/", %{"authorization" => ^secret}},
             {"/there/" <> _, headers}
           ] = asked()

    refute is_map_key(headers, "authorization")
  end

  @tag :capture_log
  test "comes from nobody whose certificate is not trusted", %{tmp_dir: folder} do
    {archive, sha256} = wheel()
    {address, authorities} = BuildServer.start_tls(ok(page("/" <> @file_name)), ok(archive))
    put_env("PIP_INDEX_URL", address)
    put_env("PIP_CERT", "")
    message = failure(fn -> Wheel.fetch("wheels", package(sha256)) end)
    assert message =~ ~r/certificate is not trusted.*unknown.ca/is

    certificates = Path.join(folder, "authorities.pem")
    File.write!(certificates, authorities)
    put_env("PIP_CERT", certificates)
    assert content(Wheel.fetch("wheels", package(sha256))) == "content"
  end

  test "comes through a proxy, but from the hosts that it is not for" do
    {archive, sha256} = wheel()
    own = BuildServer.start(fn "/" <> @file_name, _headers -> ok(archive) end)

    proxy =
      BuildServer.start(fn "http://index.invalid/simple/a-package/", headers ->
        send(__MODULE__, {:proxied, headers})
        ok(page("#{own}/#{@file_name}"))
      end)

    Process.register(self(), __MODULE__)
    put_env("HTTP_PROXY", String.replace(proxy, "http://", "http://me:secret@"))
    put_env("NO_PROXY", "elsewhere.invalid, 127.0.0.1")
    put_env("PIP_INDEX_URL", "http://index.invalid/simple")
    assert content(Wheel.fetch("wheels", package(sha256))) == "content"
    assert_received {:proxied, %{"proxy-authorization" => secret}}
    assert secret == "Basic " <> Base.encode64("me:secret")
  end

  @tag skip: not File.exists?("/dev/full")
  test "on a full disk" do
    address = BuildServer.start(fn _path, _headers -> ok("a text") end)

    message =
      failure(fn -> Failure.files("write", fn -> Download.file(address, "/dev/full") end) end)

    assert message =~ "the disk is full"
    assert message =~ "EMILY_CACHE"
  end

  test "of another content is refused" do
    {archive, sha256} = wheel()
    index(fn _ -> ok(archive) end)
    message = failure(fn -> Wheel.fetch("wheels", package()) end)
    assert message =~ "not the expected one"
    assert message =~ sha256
    refute File.exists?(Cache.path(["wheels", "a-package-1.0-a_platform"]))
    assert File.ls!(Cache.path("wheels")) == []
  end

  test "that is no archive is refused" do
    index(fn _ -> ok("no archive") end)
    message = failure(fn -> Wheel.fetch("wheels", package(sha256("no archive"))) end)
    assert message =~ "could not unpack"
  end

  describe "what is not there is told:" do
    test "the package" do
      index(fn _ -> ok("") end)
      message = failure(fn -> Wheel.fetch("wheels", %{package() | name: "another"}) end)

      assert message =~
               ~r"could not download http://127.0.0.1:\d+/simple/another/: the server answers 404"

      assert message =~ "PIP_INDEX_URL"
    end

    test "the file in the index" do
      index(fn _ -> ok("") end)
      message = failure(fn -> Wheel.fetch("wheels", %{package() | version: "2.0"}) end)
      assert message =~ "/simple/a-package/ has no a_package-2.0-py3-none-a_platform.whl"
    end

    test "the server, after it was asked again" do
      address = index(fn _ -> ok("") end)
      BuildServer.stop(address)
      message = failure(fn -> Wheel.fetch("wheels", package()) end)

      assert message =~
               "could not download #{address}/simple/a-package/: the connection is refused"

      assert message =~ "Try again with a network"
    end

    test "a password is not" do
      put_env("PIP_INDEX_URL", "http://me:secret@127.0.0.1:1/simple")
      message = failure(fn -> Wheel.fetch("wheels", package()) end)
      assert message =~ "http://127.0.0.1:1/simple/a-package/"
      refute message =~ "secret"
    end
  end

  describe "the index is that of" do
    setup %{tmp_dir: folder} do
      put_env("PIP_INDEX_URL", "")
      {:ok, home: Path.join(folder, "home")}
    end

    defp configure(file, text) do
      File.mkdir_p!(Path.dirname(file))
      File.write!(file, text)
    end

    test "pip's configuration", %{home: home, tmp_dir: folder, programs: programs} do
      only_programs(programs, [])
      ini = "[install]\nindex-url = http://no/\n[global]\n# one\nindex-url = http://global/a=b\n"
      configure(Path.join(home, ".config/pip/pip.conf"), ini)
      assert Index.address() == "http://global/a=b"

      configure(
        Path.join(home, ".config/pip/pip.conf"),
        "[download]\r\nindex_url: http://own/\r\n" <> ini
      )

      assert Index.address() == "http://own/"

      configure(Path.join(folder, "named.conf"), "[global]\nindex-url=http://named/\n")
      put_env("PIP_CONFIG_FILE", Path.join(folder, "named.conf"))
      assert Index.address() == "http://named/"

      put_env("PIP_INDEX_URL", "http://first/")
      assert Index.address() == "http://first/"
    end

    test "pip, where none is configured", %{programs: programs} do
      help =
        "  -i, --index-url <url>  Base URL of the Index (default http://pips.own/simple). This\n"

      only_programs(programs, [{"pip3", ~s([ "$1" = download ] && printf '%s' '#{help}')}])
      assert Index.address() == "http://pips.own/simple"
    end

    test "nobody, where there is no pip either", %{programs: programs} do
      only_programs(programs, [])
      message = failure(fn -> Index.address() end)
      assert message =~ "no index of Python packages"
      assert message =~ "PIP_INDEX_URL"
      assert message =~ "apt install python3-pip"
    end

    test "no folder, as pip could have it" do
      put_env("PIP_INDEX_URL", "/opt/index")
      assert failure(fn -> Index.address() end) =~ ~s(is "/opt/index")
    end
  end
end
