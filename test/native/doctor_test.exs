defmodule Emily.DoctorTest do
  # PATH is everybody's.
  use ExUnit.Case, async: false

  alias Emily.Doctor.{Checks, Findings, Kernels}
  alias Mix.Tasks.Emily.Doctor, as: Task

  doctest Emily.Doctor

  @gigabyte 1_073_741_824
  @cpu %{device: :cpu, size: 1024, gflops: 34.0, product?: true, norm: 0.8485281}
  @gpu %{@cpu | device: :gpu, size: 4096, gflops: 40_000.0}
  @h100 %{name: "H100", driver: "580.65.06", capability: "9.0", memory: "81559 MiB"}

  # A machine with nothing to mend.
  defp sound do
    %{
      project: :my_app,
      elixir: {"1.18.3", "27"},
      system: {{:unix, :linux}, "x86_64"},
      libc: "glibc 2.36",
      processor: %{model: "A processor", features: ~w(sse2 avx2 fma)},
      cores: %{count: 8, quota: nil, threads: :all},
      memory: %{total: 32 * @gigabyte, available: 30 * @gigabyte, limit: nil},
      mlx: %{built: "cpu", asked: nil, version: "0.32.4"},
      blas: ["0.3.34"],
      libraries: [],
      gpus: [],
      cuda_headers: :none,
      packages: [{:nx, "0.12.1", ">= 0.11.0 and < 0.14.0"}, {:bumblebee, nil, "~> 0.7.0"}],
      tools: [{"Rust", "1.95.0"}, {"libclang", nil}],
      kernels: {:ok, %{version: "0.32.4", devices: [@cpu]}}
    }
  end

  defp cuda(variant \\ "cuda13") do
    Map.merge(sound(), %{
      mlx: %{built: variant, asked: nil, version: "0.32.4"},
      gpus: [@h100],
      cuda_headers: {:found, "/usr/local/cuda/include"},
      kernels: {:ok, %{version: "0.32.4", devices: [@cpu, @gpu]}}
    })
  end

  defp check(findings, name), do: Enum.find(Checks.run(findings), &(&1.name == name))

  test "a sound machine has no remedy" do
    for findings <- [sound(), cuda(), cuda("cuda12")], check <- Checks.run(findings) do
      assert %{status: :ok, remedy: nil} = check
    end

    assert length(Checks.run(sound())) == 13
    assert check(cuda(), "kernels").found =~ "gpu: product 4096^3 in f32 at 40000 GFLOP/s"
  end

  # {findings, name of the check, status, what its line says, what its remedy says}
  @faults [
    {%{elixir: {"1.16.3", "26"}}, "Elixir", :failed, "1.16.3", "Elixir 1.17 or newer"},
    {%{elixir: {"1.17.0", "25"}}, "Elixir", :failed, "OTP 25", "OTP 26 or newer"},
    {%{system: {{:unix, :linux}, "riscv64"}}, "system", :failed, "riscv64", "x86-64 or aarch64"},
    {%{libc: "glibc 2.31"}, "C library", :failed, "2.31", "Debian 12"},
    {%{libc: {:none, "getconf names none"}}, "C library", :failed, "no glibc", "Debian 12"},
    {%{processor: %{model: "QEMU", features: ["sse2"]}}, "processor", :warning, "no AVX2",
     "-cpu host"},
    {%{cores: %{count: 8, quota: 2.5, threads: 3}}, "cores", :warning, "threads: 3",
     "set it to 2"},
    {%{cores: %{count: 8, quota: nil, threads: 9}}, "cores", :warning, "threads: 9",
     "set it to 8"},
    {%{memory: %{total: 8 * @gigabyte, available: @gigabyte, limit: nil}}, "memory", :warning,
     "8.0 GB, 1.0 GB free", "bf16"},
    {%{memory: %{total: 8 * @gigabyte, available: 8 * @gigabyte, limit: @gigabyte}}, "memory",
     :warning, "1.0 GB, 1.0 GB free", "bf16"},
    {%{mlx: %{built: nil, asked: nil, version: "0.32.4"}}, "MLX", :failed, "no MLX",
     "mix deps.compile emily"},
    {%{mlx: %{built: "cpu", asked: "cuda13", version: "0.32.4"}}, "MLX", :warning, "says cuda13",
     "EMILY_MLX=cuda13 mix deps.compile emily"},
    {%{kernels: {:ok, %{version: "0.31.0", devices: [@cpu]}}}, "MLX", :failed, "0.31.0",
     "LD_LIBRARY_PATH"},
    {%{blas: []}, "BLAS", :failed, "no OpenBLAS", "mix deps.compile emily"},
    {%{libraries: :no_nif}, "libraries", :failed, "no libemily_nif.so", "mix deps.compile emily"},
    {%{libraries: ["libfoo.so.1 => not found"]}, "libraries", :failed, "libfoo.so.1",
     "mix deps.clean emily --build"},
    {%{libraries: ["x.so: /lib/libc.so.6: version `GLIBC_2.35' not found (required by x.so)"]},
     "libraries", :failed, "not found: GLIBC_2.35", "Debian 12"},
    {%{libraries: ["x.so: libstdc++.so.6: version `GLIBCXX_3.4.32' not found"]}, "libraries",
     :failed, "GLIBCXX_3.4.32", "libstdc++6"},
    {%{gpus: {:unclear, "NVIDIA-SMI has failed"}}, "GPU", :warning, "has failed", "--gpus all"},
    {%{gpus: [@h100]}, "GPU", :warning, "H100", "EMILY_MLX=cuda13"},
    {%{gpus: [%{@h100 | driver: "550.90.07"}]}, "GPU", :warning, "H100", "EMILY_MLX=cuda12"},
    {%{packages: [{:nx, "0.10.0", ">= 0.11.0 and < 0.14.0"}]}, "packages", :failed, "nx 0.10.0",
     ~s({:nx, ">= 0.11.0 and < 0.14.0"})},
    {%{packages: [{:nx, nil, "~> 1.0"}]}, "packages", :warning, "Nx is not there", "EMILY_NO_NX"},
    {%{packages: [{:nx, "of today", "~> 1.0"}]}, "packages", :warning, "cannot be told",
     "other checks"},
    {%{processor: {:error, "could not read"}}, "processor", :warning, "could not read",
     "other checks"},
    {%{kernels: {:ok, %{version: "0.32.4", devices: [%{@cpu | product?: false}]}}}, "kernels",
     :failed, "WRONG", "report it"},
    {%{kernels: {:ok, %{version: "0.32.4", devices: [%{@cpu | norm: 0.6}]}}}, "kernels", :failed,
     "fused norm WRONG (0.6)", "report it"},
    {%{kernels: {:error, {:load, "Failed to load NIF library: invalid ELF header"}}}, "kernels",
     :failed, "invalid ELF header", "mix deps.clean emily --build"},
    {%{kernels: {:error, {:load, "compiled against a newer NIF version"}}}, "kernels", :failed,
     "cannot be loaded", "built for another OTP"},
    {%{kernels: {:error, {:run, "cudaMalloc failed: out of memory"}}}, "kernels", :failed,
     "out of memory", "nvidia-smi"},
    {%{kernels: {:error, {:run, "Can not find locations of CUDA headers"}}}, "kernels", :failed,
     "CUDA headers", "CUDA_HOME"},
    {%{kernels: {:error, {:signal, 4}}}, "kernels", :failed, "SIGILL", "-cpu host"},
    {%{kernels: {:error, {:signal, 9}}}, "kernels", :failed, "SIGKILL", "out of memory"},
    {%{kernels: {:error, {:signal, 11}}}, "kernels", :failed, "signal 11", "LD_LIBRARY_PATH"},
    {%{kernels: {:error, :time}}, "kernels", :failed, "five minutes", "dmesg"},
    {%{kernels: {:error, "enoent"}}, "kernels", :failed, "enoent", "erl -version"}
  ]

  for {{changes, name, status, found, remedy}, i} <- Enum.with_index(@faults, 1) do
    test "remedy #{i}: #{name}, #{found}" do
      changes = unquote(Macro.escape(changes))
      check = check(Map.merge(sound(), changes), unquote(name))
      assert check.status == unquote(status)
      assert check.found =~ unquote(found)
      assert check.remedy =~ unquote(remedy)
    end
  end

  # The same over a machine whose MLX is built for CUDA 13.
  @cuda_faults [
    {%{libraries: ["libcublasLt.so.13 => not found"]}, "libraries", "libcublasLt.so.13",
     "cuBLASLt: install CUDA 13 of the system, or `pip install nvidia-cublas`"},
    {%{libraries: ["libcufft.so.12 => not found"]}, "libraries", "libcufft", "nvidia-cufft`"},
    {%{libraries: ["libnvrtc.so.13 => not found"]}, "libraries", "libnvrtc",
     "nvidia-cuda-nvrtc`"},
    {%{libraries: ["libcudnn.so.9 => not found"]}, "libraries", "libcudnn", "nvidia-cudnn-cu13`"},
    {%{libraries: ["libnccl.so.2 => not found"]}, "libraries", "libnccl", "nvidia-nccl-cu13`"},
    {%{libraries: ["libcuda.so.1 => not found"]}, "libraries", "libcuda.so.1", "NVIDIA's driver"},
    {%{cuda_headers: :none}, "CUDA headers", "not found", "pip install nvidia-cuda-runtime`"},
    {%{gpus: []}, "GPU", "no NVIDIA GPU", "EMILY_MLX=cpu mix deps.compile emily"},
    {%{gpus: {:unclear, "no devices were found"}}, "GPU", "no devices", "--gpus all"},
    {%{gpus: [%{@h100 | driver: "550.90.07"}]}, "GPU", "550.90.07", "580.0.0 or newer"},
    {%{gpus: [%{@h100 | driver: "550.90.07"}]}, "GPU", "550.90.07", "EMILY_MLX=cuda12"},
    {%{gpus: [%{@h100 | capability: "7.0"}]}, "GPU", "sm_7.0", "7.5 or newer"},
    {%{kernels: {:ok, %{version: "0.32.4", devices: [@cpu]}}}, "kernels", "MLX sees no GPU",
     "CUDA_VISIBLE_DEVICES"}
  ]

  for {{changes, name, found, remedy}, i} <- Enum.with_index(@cuda_faults, 1) do
    test "remedy #{i} with CUDA: #{name}, #{found}" do
      check = check(Map.merge(cuda(), unquote(Macro.escape(changes))), unquote(name))
      assert check.status == :failed
      assert check.found =~ unquote(found)
      assert check.remedy =~ unquote(remedy)
    end
  end

  test "CUDA 12's packages carry its number" do
    findings = Map.put(cuda("cuda12"), :libraries, ["libcublasLt.so.12 => not found"])
    assert check(findings, "libraries").remedy =~ "pip install nvidia-cublas-cu12`"
  end

  test "in Emily's own checkout a build is Mix's" do
    findings = Map.merge(sound(), %{project: :emily, libraries: :no_nif})
    assert check(findings, "libraries").remedy == "Build it: `mix clean && mix compile`."
  end

  test "a release is built where it is made, without tools here" do
    findings =
      Map.merge(sound(), %{project: :release, tools: :elsewhere, mlx: %{sound().mlx | built: nil}})

    assert check(findings, "MLX").remedy =~ "where the release is made"
    assert check(findings, "build tools") == nil
  end

  test "what a system lacks by nature is no line" do
    findings = %{sound() | libc: :elsewhere, blas: :elsewhere, gpus: :elsewhere}
    names = Enum.map(Checks.run(findings), & &1.name)

    assert Enum.sort(Enum.map(Checks.run(sound()), & &1.name) -- names) == [
             "BLAS",
             "C library",
             "GPU"
           ]
  end

  describe "on this machine" do
    test "everything is found" do
      findings = Findings.gather()
      assert Enum.sort(Map.keys(findings)) == Enum.sort(Map.keys(sound()))
      assert {:ok, %{version: version, devices: [%{device: :cpu} = cpu | _]}} = findings.kernels
      assert version == Emily.Native.mlx_version()
      assert cpu.product? and cpu.gflops > 0.0
      assert_in_delta cpu.norm, 3 / :math.sqrt(12.5), 1.0e-6
      refute Enum.any?(Checks.run(findings), &(&1.found =~ "cannot be told"))
    end

    test "nothing raises where no program is found" do
      path = System.fetch_env!("PATH")
      System.put_env("PATH", "/nowhere")
      findings = Findings.gather()
      System.put_env("PATH", path)

      assert findings.tools |> Enum.map(&elem(&1, 1)) |> Enum.take(2) == [nil, nil]
      assert Enum.all?(Checks.run(findings), &is_binary(&1.found))
    end

    test "the task takes no arguments" do
      assert_raise Mix.Error, ~r/takes no arguments, got: --json/, fn -> Task.run(["--json"]) end
    end
  end

  describe "the VM that runs the kernels" do
    @describetag :tmp_dir

    # A folder with a `main` of its own in the place of the doctor's.
    defp main(folder, body) do
      source = "-module('#{Kernels}'). -export([main/0]). main() -> #{body}."

      forms =
        for form <- String.split(source, ~r/(?<=\.) /) do
          {:ok, tokens, _} = :erl_scan.string(to_charlist(form))
          {:ok, form} = :erl_parse.parse_form(tokens)
          form
        end

      {:ok, module, beam} = :compile.forms(forms)
      File.write!(Path.join(folder, "#{module}.beam"), beam)
      [folder]
    end

    test "may be ended by a signal", %{tmp_dir: folder} do
      kill = main(folder, "os:cmd(\"kill -SEGV \" ++ os:getpid()), timer:sleep(infinity)")
      assert Kernels.run(kill) == {:error, {:signal, 11}}
    end

    test "may fail to say anything", %{tmp_dir: folder} do
      assert {:error, {:run, "exit status 3" <> _}} = Kernels.run(main(folder, "halt(3)"))
    end

    test "may hang", %{tmp_dir: folder} do
      assert Kernels.run(main(folder, "timer:sleep(infinity)"), 1) == {:error, :time}
    end

    test "tells why the NIF cannot be loaded", %{tmp_dir: folder} do
      File.mkdir_p!(Path.join(folder, "emily/priv"))
      File.cp_r!(Path.join(:code.lib_dir(:emily), "ebin"), Path.join(folder, "emily/ebin"))
      ebins = [Path.join(folder, "emily/ebin"), Path.join(:code.lib_dir(:elixir), "ebin")]

      assert {:error, {:load, reason}} = Kernels.run(ebins)
      assert reason =~ "No such file or directory"

      File.write!(Path.join(folder, "emily/priv/libemily_nif.so"), "no library")
      assert {:error, {:load, reason}} = Kernels.run(ebins)
      assert reason =~ ~r/file too short|invalid ELF header/
    end
  end
end
