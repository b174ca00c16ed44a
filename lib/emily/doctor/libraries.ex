defmodule Emily.Doctor.Libraries do
  @moduledoc false
  # Which remedy a message of the dynamic loader or of CUDA calls for.

  # Each library of CUDA and what pip calls it; the suffix is that of CUDA's version.
  @cuda [
    {"libcublasLt", "cuBLASLt", "nvidia-cublas"},
    {"libcufft", "cuFFT", "nvidia-cufft"},
    {"libnvrtc", "NVRTC", "nvidia-cuda-nvrtc"},
    {"libnvJitLink", "nvJitLink", "nvidia-nvjitlink"},
    {"libcudart", "the CUDA runtime", "nvidia-cuda-runtime"},
    {"libcudnn", "cuDNN 9", "nvidia-cudnn"},
    {"libnccl", "NCCL", "nvidia-nccl"}
  ]

  @doc "The library that a line of `ldd` misses, or the version of one."
  def name(line) do
    case Regex.run(~r/version `(\S+)' not found/, line) || Regex.run(~r/^(\S+\.so\S*)/, line) do
      [_, name] -> name
      nil -> line
    end
  end

  @doc "The remedy for a message; `rebuild` is the command that builds again."
  def remedy(message, variant, rebuild) do
    cond do
      message =~ "libcuda.so" or
          message =~ ~r/driver version is insufficient|no CUDA-capable device/ ->
        "libcuda.so.1 comes with NVIDIA's driver: install or update it, or in a container give it the GPU (docker run --gpus all)."

      library = Enum.find(@cuda, fn {file, _, _} -> message =~ file end) ->
        {_, name, package} = library

        "#{name}: install CUDA #{major(variant)} of the system, or `pip install #{package(package, variant)}` and put its lib/ folder on LD_LIBRARY_PATH."

      message =~ ~r/GLIBC_\d/ ->
        "This glibc is too old: use Debian 12, Ubuntu 22.04, Fedora 36 or newer."

      message =~ ~r/GLIBCXX_\d|CXXABI_\d|libstdc\+\+/ ->
        "libstdc++ is missing or too old: install that of g++ 12 or newer (`apt install libstdc++6`), and take older ones out of LD_LIBRARY_PATH."

      message =~ "CUDA headers" ->
        headers(variant)

      message =~ ~r/NIF version|upgrade|bad_lib/ ->
        "The native part was built for another OTP: build again: #{rebuild}."

      message =~ ~r/out of memory|cudaMalloc/i ->
        "The GPU's memory is full: end what else runs on it (nvidia-smi lists it)."

      true ->
        "Build again: #{rebuild}; if it stays so, delete Emily's cache first (EMILY_CACHE, by default ~/.cache/emily)."
    end
  end

  @doc "How to get the headers of CUDA."
  def headers(variant) do
    "Install the headers of CUDA #{major(variant)} (the system's toolkit, or `pip install #{package("nvidia-cuda-runtime", variant)}`) " <>
      "and set CUDA_HOME to the folder that has them in include/."
  end

  defp major("cuda" <> major), do: major
  defp major(_), do: "13"

  # cuDNN and NCCL keep the suffix for CUDA 13; the others have dropped it.
  defp package(name, "cuda13") when name not in ~w(nvidia-cudnn nvidia-nccl), do: name
  defp package(name, variant), do: "#{name}-cu#{major(variant)}"
end
