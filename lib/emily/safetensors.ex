defmodule Emily.Safetensors do
  @moduledoc """
  Reads [safetensors](https://github.com/huggingface/safetensors) files straight into MLX's memory:
  the bytes of a tensor never come to the BEAM's heap.

  It needs the package `jason`, which Bumblebee brings along.

  A Bumblebee that has `load_model/2`'s option `:safetensors_reader` (those after 0.7.0) takes the
  reader as it is:

      Bumblebee.load_model({:hf, "HuggingFaceTB/SmolLM2-135M-Instruct"},
        backend: Emily.Backend,
        safetensors_reader: &Emily.Safetensors.read!/1
      )

  For Bumblebee 0.7.0 there is `load_model/2` here.

  ## Types

  All of the format that Nx has, with `F8_E5M2` as `:f8` and `F8_E4M3` as `:f8_e4m3fn`, which `Nx.BinaryBackend`
  holds, and `BOOL` as u8. What Nx has not is listed with the rest and raises when it is read: other types, such as
  `F4` or `F8_E8M0`, and tensors without elements.

  The bytes of an `F8_E5M2` are the file's; Nx takes its subnormal numbers, the least six that are not zero, for
  others when it casts them.

  ## Errors

  `File.Error` where the file cannot be read; `ArgumentError`, which names the file, the place and the
  problem, where it is broken: cut off, a header that is no JSON or no object of tensors, offsets
  beyond the file's end or unlike the shape, tensors that overlap, names that stand twice. Of a file that is whole,
  a tensor that cannot be read raises alone. The file is read, not mapped: cutting it off later raises too, and
  cannot end the VM.
  """

  alias Emily.{Lower, Package}
  alias Emily.Safetensors.{Header, Tensor}

  @compile {:no_warn_undefined,
            [
              Axon,
              Bumblebee,
              Bumblebee.Conversion.PyTorchParams,
              Bumblebee.HuggingFace.Transformers.Model,
              Jason
            ]}

  @doc """
  The tensors of a file, by name, each still in it: `Nx.to_tensor/1` reads one onto `Emily.Backend`, or raises
  an `ArgumentError` with its name where it cannot be read.

  ## Options

    * `:device` - `:cpu` or `:gpu`; MLX's default device without it

  ## Example

      iex> path = Path.join(System.tmp_dir!(), "emily-\#{System.pid()}.safetensors")
      iex> header = ~s({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})
      iex> numbers = <<1.5::float-32-little, -2.0::float-32-little>>
      iex> File.write!(path, [<<byte_size(header)::64-little>>, header, numbers])
      iex> %{"w" => lazy} = Emily.Safetensors.read!(path)
      iex> lazy.shape
      {2}
      iex> lazy |> Nx.to_tensor() |> Nx.to_list()
      [1.5, -2.0]
      iex> File.rm!(path)
  """
  @spec read!(Path.t(), keyword()) :: %{String.t() => Tensor.t()}
  def read!(path, opts \\ []) do
    Package.require!("Emily.Safetensors.read!/2", [:jason])
    opts = Keyword.validate!(opts, [:device])
    path = path |> IO.chardata_to_string() |> Path.expand()
    Header.read!(path, Emily.Backend.init(opts)[:device])
  end

  @doc """
  `Bumblebee.load_model/2` for a folder, its `model.safetensors` (or the files of its
  `model.safetensors.index.json`) read by `read!/2`.

      {:ok, model_info} = Emily.Safetensors.load_model("/models/all-MiniLM-L6-v2")

  Each tensor of the files is read once, also where two layers share it. The parameters are computed
  when it returns: what was read in another type than the model's is not kept.

  ## Options

    * `:device` - as in `read!/2`
    * `:spec`, `:module`, `:architecture`, `:type`, `:log_params_diff` - as in `Bumblebee.load_model/2`
  """
  @spec load_model(Path.t(), keyword()) ::
          {:ok, Bumblebee.model_info()} | {:error, String.t()}
  def load_model(folder, opts \\ []) do
    Package.require!("Emily.Safetensors.load_model/2", [:bumblebee, :axon, :jason])
    names = [:device, :spec, :module, :architecture, :type, :log_params_diff]
    opts = Keyword.validate!(opts, names)

    with {:ok, spec} <- spec(folder, opts) do
      model = Bumblebee.build_model(spec, Keyword.take(opts, [:type]))

      params =
        Bumblebee.Conversion.PyTorchParams.load_params!(
          model,
          spec.__struct__.input_template(spec),
          paths(folder),
          [
            params_mapping: Bumblebee.HuggingFace.Transformers.Model.params_mapping(spec),
            loader_fun: &tensors(&1, Keyword.take(opts, [:device])),
            backend: {Emily.Backend, Keyword.take(opts, [:device])}
          ] ++ Keyword.take(opts, [:log_params_diff])
        )

      compute(params)
      {:ok, %{model: model, params: params, spec: spec}}
    end
  end

  # Each tensor once, so that layers that share it share its memory. What MLX does not have as it is stays lazy,
  # and is read, or raises, where the model has a place for it.
  defp tensors(path, opts) do
    for {name, lazy} <- read!(path, opts), into: %{} do
      now? = lazy.problem == nil and Lower.type?(lazy.type)
      {name, if(now?, do: Nx.to_tensor(lazy), else: lazy)}
    end
  end

  defp spec(folder, opts) do
    if spec = opts[:spec],
      do: {:ok, spec},
      else: Bumblebee.load_spec({:local, folder}, Keyword.take(opts, [:module, :architecture]))
  end

  defp paths(folder) do
    index = Path.join(folder, "model.safetensors.index.json")

    with true <- File.regular?(index),
         %{"weight_map" => %{} = map} <- index |> File.read!() |> Jason.decode!() do
      for {_name, file} <- map, uniq: true, do: inside!(folder, file, index)
    else
      false -> [Path.join(folder, "model.safetensors")]
      _ -> raise ArgumentError, "Emily.Safetensors: #{index}: there is no weight_map"
    end
  end

  defp inside!(folder, file, index) do
    if is_binary(file) and Path.basename(file) == file,
      do: Path.join(folder, file),
      else:
        raise(
          ArgumentError,
          "Emily.Safetensors: #{index}: #{inspect(file)} is no file's name"
        )
  end

  defp compute(%{data: data}) do
    for {_layer, params} <- data, {_name, container} <- params do
      Nx.LazyContainer.traverse(container, :ok, fn _template, tensor, :ok ->
        {:ok, Emily.Native.eval(tensor.().data.ref)}
      end)
    end
  end
end
