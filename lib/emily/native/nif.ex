defmodule Emily.Native.Nif do
  @moduledoc false
  # Stubs of the NIF library; `Emily.Native` documents what they do.

  alias Emily.Native.{Environment, Threads}

  # Loading may happen while Emily is compiled, and needs these modules then.
  require Environment
  require Threads

  @on_load :load

  def load do
    path = :filename.join(:code.priv_dir(:emily), ~c"libemily_nif")

    settings = {Threads.count(Threads.configured()), Environment.variables()}

    case :erlang.load_nif(path, settings) do
      :ok -> :ok
      {:error, {reason, text}} -> {:error, {reason, text}}
    end
  end

  def run(_expressions, _device), do: stub()
  def run_long(_expressions, _device), do: stub()
  def compile(_function, _fuse, _results), do: stub()
  def run_program(_program, _arrays, _device), do: stub()
  def run_long_program(_program, _arrays, _device), do: stub()
  def run_waiting_program(_program, _arrays, _device, _tag, _given_and_nested), do: stub()
  def give_away(_arrays), do: stub()
  def answer_call(_run, _arrays), do: stub()
  def abort_run(_run), do: stub()

  def rms_norm(_x, _weight, _eps, _device), do: stub()
  def layer_norm(_x, _weight, _bias, _eps, _device), do: stub()
  def rope(_x, _dims, _traditional, _base, _scale, _offset, _device), do: stub()
  def rope_with_freqs(_x, _dims, _traditional, _scale, _offset, _freqs, _device), do: stub()
  def attention(_q, _k, _v, _scale, _mask, _sinks, _device), do: stub()
  def einsum(_subscripts, _operands, _device), do: stub()

  def from_binary(_binary, _shape, _type, _device), do: stub()
  def from_large_binary(_binary, _shape, _type, _device), do: stub()
  def from_file(_path, _offset, _shape, _type, _device), do: stub()
  def from_address(_address, _shape, _type, _device), do: stub()
  def to_binary(_array, _dtype, _tag), do: stub()
  def address(_array, _tag), do: stub()
  def shape(_array), do: stub()
  def dtype(_array), do: stub()
  def nbytes(_array), do: stub()
  def evaluate(_arrays, _tag), do: stub()
  def schedule(_arrays, _tag), do: stub()

  def devices, do: stub()
  def device_info(_device), do: stub()
  def mlx_version, do: stub()
  def stream_new(_device), do: stub()
  def stream_close(_stream), do: stub()

  def memory, do: stub()
  def set_memory_limit(_bytes), do: stub()
  def set_cache_limit(_bytes), do: stub()
  def clear_cache, do: stub()
  def reset_peak_memory, do: stub()
  def has_grown(_since, _bytes), do: stub()
  def settle(_after), do: stub()

  def kernels, do: stub()
  def replayed_turns, do: stub()
  def replayed_runs, do: stub()
  def threads, do: stub()
  def set_threads(_count), do: stub()

  defp stub, do: :erlang.nif_error(:nif_not_loaded)
end
