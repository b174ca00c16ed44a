Code.require_file("support/build_case.exs", __DIR__)

defmodule Emily.BuildTest do
  # PATH and the environment belong to the whole VM.
  use Emily.BuildCase, async: false

  alias Emily.Build.{Cache, Command, Failure, Lock, Mlx, Nif}

  describe "the cache" do
    test "two builds make one entry at once" do
      make = fn folder ->
        Process.sleep(50)
        File.write!(Path.join(folder, "made"), "")
      end

      entries =
        1..4
        |> Enum.map(fn _ -> Task.async(fn -> Cache.entry(["entries", "one"], make) end) end)
        |> Task.await_many(:infinity)

      assert Enum.uniq(entries) == [Cache.path(["entries", "one"])]
      assert File.ls!(Cache.path("entries")) == ["one"]
    end

    test "an entry whose making fails is not there" do
      assert_raise RuntimeError, fn -> Cache.entry(["entries", "one"], fn _ -> raise "no" end) end
      assert File.ls!(Cache.path("entries")) == []
    end

    test "an entry that was changed is made again, and one that was not is not" do
      made = :counters.new(1, [])

      make = fn folder ->
        :counters.add(made, 1, 1)
        File.mkdir_p!(Path.join(folder, "b"))
        File.write!(Path.join(folder, "a"), "content of a")
        File.write!(Path.join(folder, "b/c"), "content of c")
      end

      entry = Cache.entry(["entries", "one"], make)

      damages = [
        fn -> :ok end,
        fn -> File.write!(Path.join(entry, "a"), "content") end,
        fn -> File.write!(Path.join(entry, "b/c"), "Content of c") end,
        fn -> File.write!(Path.join(entry, "a"), "") end,
        fn -> File.rm!(Path.join(entry, "a")) end,
        fn -> File.rm_rf!(Path.join(entry, "b")) end,
        fn -> File.write!(Path.join(entry, "more"), "") end,
        fn -> File.rm!(Path.join(entry, "RECORD")) end,
        fn -> File.write!(Path.join(entry, "RECORD"), "") end,
        fn ->
          [line | _] = entry |> Path.join("RECORD") |> File.read!() |> String.split("\n")
          File.write!(Path.join(entry, "RECORD"), line)
        end
      ]

      for {damage, times} <- Enum.with_index(damages, 1) do
        damage.()
        assert Cache.entry(["entries", "one"], make) == entry
        assert :counters.get(made, 1) == times
        assert File.read!(Path.join(entry, "a")) == "content of a"
        assert File.read!(Path.join(entry, "b/c")) == "content of c"
        assert File.ls!(Cache.path("entries")) == ["one"]
      end
    end

    test "an entry that is damaged and cannot be made again raises, and stays" do
      entry = Cache.entry(["entries", "one"], &File.write!(Path.join(&1, "a"), "content"))
      File.write!(Path.join(entry, "a"), "")
      assert_raise RuntimeError, fn -> Cache.entry(["entries", "one"], fn _ -> raise "no" end) end
      assert File.ls!(Cache.path("entries")) == ["one"]
    end

    test "is the user's own" do
      entry = Cache.entry(["entries", "one"], fn _ -> :ok end)

      for folder <- [Cache.root(), Path.dirname(entry), entry],
          do: assert(Bitwise.band(File.stat!(folder).mode, 0o777) == 0o700)
    end

    test "that others can write to is refused" do
      File.mkdir_p!(Cache.root())

      for mode <- [0o777, 0o770, 0o757, 0o1777] do
        File.chmod!(Cache.root(), mode)

        for use <- [
              fn -> Cache.entry(["one"], fn _ -> :ok end) end,
              fn -> Cache.lock("l", fn -> 1 end) end
            ] do
          message = failure(use)
          assert message =~ "the cache #{Cache.root()} may be written by other users"
          assert message =~ "chmod -R go-w #{Cache.root()}"
          assert File.ls!(Cache.root()) == []
        end
      end

      File.chmod!(Cache.root(), 0o755)
      entry = Cache.entry(["entries", "one"], fn _ -> :ok end)

      for folder <- [entry, Path.dirname(entry)] do
        File.chmod!(folder, 0o777)
        message = failure(fn -> Cache.entry(["entries", "one"], fn _ -> :ok end) end)
        assert message =~ "the cache #{folder} may be written by other users"
        File.chmod!(folder, 0o755)
      end
    end

    test "that belongs to somebody else is refused" do
      File.mkdir_p!(Cache.root())

      # Only root can give a folder away.
      if File.chown(Cache.root(), 12_345) == :ok do
        message = failure(fn -> Cache.entry(["one"], fn _ -> :ok end) end)
        assert message =~ "belongs to another user (number 12345)"
        assert message =~ "EMILY_CACHE"
      end
    end

    test "a folder that may not be written", %{tmp_dir: folder} do
      file = Path.join(folder, "file")
      File.write!(file, "")
      put_env("EMILY_CACHE", Path.join(file, "cache"))
      assert failure(fn -> Cache.entry(["one"], fn _ -> :ok end) end) =~ "write to the cache"
    end
  end

  describe "a lock" do
    for program <- Lock.programs(), System.find_executable(program) do
      test "of #{program} excludes, and is free again" do
        File.mkdir_p!(Cache.root())
        file = Cache.path("lock")
        counter = :counters.new(2, [])

        work = fn ->
          Lock.hold(
            file,
            fn ->
              :counters.add(counter, 1, 1)
              assert :counters.get(counter, 1) == 1
              Process.sleep(20)
              :counters.sub(counter, 1, 1)
              :counters.add(counter, 2, 1)
            end,
            [unquote(program)]
          )
        end

        # With one of another program among them.
        other = Task.async(fn -> Lock.hold(file, fn -> Process.sleep(50) end) end)
        1..3 |> Enum.map(fn _ -> Task.async(work) end) |> Task.await_many(:infinity)
        Task.await(other, :infinity)
        assert :counters.get(counter, 2) == 3
      end

      test "of #{program} does not outlive who holds it" do
        File.mkdir_p!(Cache.root())
        test = self()

        owner =
          spawn(fn ->
            Lock.hold(
              Cache.path("lock"),
              fn ->
                send(test, :held)
                Process.sleep(:infinity)
              end,
              [unquote(program)]
            )
          end)

        assert_receive :held
        Process.exit(owner, :kill)
        assert Lock.hold(Cache.path("lock"), fn -> :done end) == :done
      end
    end

    test "is free when the VM that holds it is killed" do
      File.mkdir_p!(Cache.root())

      files = for file <- ~w(failure command record cache lock), do: "build/#{file}.ex"

      code = """
      {:ok, _, _} = Kernel.ParallelCompiler.require(#{inspect(files)})
      Emily.Build.Lock.hold(hd(System.argv()), fn -> IO.puts("held"); Process.sleep(:infinity) end)
      """

      arguments = ["-e", code, Cache.path("lock")]

      port =
        Port.open({:spawn_executable, System.find_executable("elixir")}, [
          :binary,
          args: arguments
        ])

      assert_receive {^port, {:data, "held\n"}}
      {:os_pid, pid} = Port.info(port, :os_pid)
      {_, 0} = System.cmd("kill", ["-9", to_string(pid)])
      assert Lock.hold(Cache.path("lock"), fn -> :done end) == :done
    end

    # As earlier builds left them: a folder with a number in it, which anything could stand in.
    test "takes what is there for a place only, never for its owner" do
      folder = Cache.path("name.lock")
      File.mkdir_p!(folder)
      File.chmod!(Cache.root(), 0o700)

      for owner <- [
            "0; touch #{Cache.path("pwned")}",
            "$(touch #{Cache.path("pwned")})",
            System.pid(),
            ""
          ] do
        File.write!(Path.join(folder, "pid"), owner)
        assert Cache.lock("name", fn -> :done end) == :done
      end

      assert File.ls!(Cache.root()) == ["name.lock"]
    end

    test "that cannot be had says so" do
      message = failure(fn -> Lock.hold(Cache.path("none/lock"), fn -> :done end) end)
      assert message =~ "could not lock #{Cache.path("none/lock")}"

      assert failure(fn -> Lock.hold(Cache.path("lock"), fn -> :done end, []) end) =~
               "nothing here"
    end
  end

  describe "failures tell the remedy:" do
    for {name, output, what, remedy} <- [
          {"no libclang", "thread panicked: Unable to find libclang: ...", "libclang",
           "apt install libclang-dev"},
          {"an old compiler", "fatal error: format: No such file or directory", "std::format",
           "g++-14"},
          {"an old Rust", "error: rustc 1.85 is not supported by the following package",
           "too old", "1.91"},
          {"no linker", "error: linker `cc` not found", "linker", "g++"},
          {"a damaged library", "error[E0786]: found invalid metadata files for crate `x`",
           "damaged", "target"},
          {"no crates", "error: failed to download from `registry`", "downloaded", "network"},
          {"a full disk", "No space left on device (os error 28)", "disk is full", "EMILY_CACHE"},
          {"anything else", "error[E0308]: mismatched types", "exit status 101", "report"}
        ] do
      test name do
        message = failure(fn -> Failure.program("cargo", "cargo", unquote(output), 101) end)
        assert message =~ unquote(what)
        assert message =~ unquote(remedy)
      end
    end

    test "a program that is not there" do
      {output, status} = Command.run("no-such-program", [])
      assert failure(fn -> Failure.program("x", "cargo", output, status) end) =~ "Install Rust"
    end

    test "an unknown variant" do
      put_env("EMILY_MLX", "cuda11")
      assert failure(fn -> Mlx.variant() end) =~ ~r/EMILY_MLX is "cuda11".*cpu, cuda12 or cuda13/s
      put_env("EMILY_MLX", "")
      configure(:cuda11)
      assert failure(fn -> Mlx.variant() end) =~ "config :emily, :mlx is :cuda11"
    end

    test "an old C library", %{programs: programs} do
      only_programs(programs, [{"getconf", "echo glibc 2.31"}])

      assert failure(fn -> Mlx.check_system() end) =~
               "glibc 2.35 or newer; this system has glibc 2.31"

      only_programs(programs, [{"getconf", "exit 1"}])
      assert failure(fn -> Mlx.check_system() end) =~ "another C library"
    end

    test "g++ too old", %{programs: programs} do
      put_env("CXX", "")
      only_programs(programs, [{"g++", "echo 12"}])
      assert failure(fn -> Mlx.compiler() end) =~ "g++ of version 13"
      only_programs(programs, [{"g++-13", "echo 13"}])
      assert Mlx.compiler() == "g++-13"
    end
  end

  defp configure(variant) do
    Application.put_env(:emily, :mlx, variant)
    on_exit(fn -> Application.delete_env(:emily, :mlx) end)
  end

  test "the environment names the variant, else the configuration" do
    put_env("EMILY_MLX", "")
    assert Mlx.variant() == "cpu"
    configure(:cuda12)
    assert Mlx.variant() == "cuda12"
    put_env("EMILY_MLX", "cuda13")
    assert Mlx.variant() == "cuda13"
  end

  test "another machine has another compiler", %{programs: programs} do
    put_env("CXX", "")
    put_env("CARGO_BUILD_TARGET", "riscv64-unknown-linux-gnu")
    only_programs(programs, [{"g++-14", "echo 14"}])
    assert failure(fn -> Mlx.compiler() end) =~ "there is no riscv64-linux-gnu-g++"
    only_programs(programs, [{"riscv64-linux-gnu-g++-14", "echo 14"}])
    assert Mlx.compiler() == "riscv64-linux-gnu-g++-14"
    assert Mlx.triple() == "riscv64-unknown-linux-gnu"
  end

  # Debian's `g++-14` alone brings no `cc`, for which a crate with assembly would look.
  test "cargo's crates are compiled by the compiler that links them" do
    for target <- ~w(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu) do
      put_env("CARGO_BUILD_TARGET", target)
      config = Nif.cargo_config(target: "t", triple: Mlx.triple(), linker: "g++-14")
      assert config =~ ~s([target.#{target}]\nlinker = "g++-14"\n)
      assert config =~ ~s([env]\nCC_#{target} = "g++-14"\n)
    end
  end

  describe "for macOS" do
    setup do
      put_env("CARGO_BUILD_TARGET", "aarch64-apple-darwin")
      put_env("EMILY_MLX", "cuda12")
    end

    test "there is one MLX, whatever is asked for elsewhere" do
      assert Mlx.triple() == "aarch64-apple-darwin"
      assert {Mlx.variant(), Mlx.common()} == {"metal", "metal"}
      assert Mlx.check_system()
    end

    test "Intel's processors have none" do
      put_env("CARGO_BUILD_TARGET", "x86_64-apple-darwin")
      assert failure(fn -> Mlx.check_system() end) =~ "no prebuilt MLX for x86_64-apple-darwin"
    end

    test "the compiler is named where it is another machine's", %{programs: programs} do
      put_env("CXX", "")
      only_programs(programs, [{"c++", "exit 1"}])

      if Mlx.cross?(),
        do:
          assert(failure(fn -> Mlx.compiler() end) =~ "no C++ compiler for aarch64-apple-darwin"),
        else: assert(Mlx.compiler() == Path.join(programs, "c++"))

      put_env("CXX", "a-compiler")
      assert Mlx.compiler() == "a-compiler"
    end

    test "cargo links with Apple's library of C++, for the oldest macOS that MLX runs on" do
      options = [target: "t", triple: Mlx.triple(), linker: "l", prepared: "p", libraries: "m"]
      config = Nif.cargo_config(options)
      assert config =~ ~s(["static=mlxc", "dylib=mlx", "dylib=c++"])
      assert config =~ ~s([env]\nMACOSX_DEPLOYMENT_TARGET = "14.0"\n)
      refute config =~ "include ="
    end
  end

  test "versions of glibc" do
    for good <- ~w(2.35 2.36 2.41 3.0 2.35.1), do: assert(Mlx.glibc_enough?(good))
    for bad <- ~w(2.34 2.9 1.40 none), do: refute(Mlx.glibc_enough?(bad))
  end

  test "a library that cargo left cut short is linked anew", %{tmp_dir: folder} do
    target = Path.join(folder, "target")
    extension = if Mlx.macos?(), do: "dylib", else: "so"
    File.mkdir_p!(Path.join(target, "release/deps"))
    library = Path.join(target, "release/libemily_nif.#{extension}")
    copies = [library, Path.join(target, "release/deps/libemily_nif.#{extension}")]

    # As cargo: what is there is taken for whole.
    cargo = fn arguments, _env ->
      assert "--locked" in arguments
      for file <- copies, not File.exists?(file), do: File.write!(file, "whole")
      :ok
    end

    for file <- copies, do: File.write!(file, "cut")
    built = Nif.built([{"a.rs", ""}], target, cargo)
    assert File.read!(Path.join(built, "libemily_nif.so")) == "whole"
  end
end
