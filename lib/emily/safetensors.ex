defmodule Emily.Safetensors do
  @moduledoc """
  Reads [safetensors](https://github.com/huggingface/safetensors) files straight into MLX's memory.

  The bytes of a tensor never come to the BEAM's heap. Models are read whole, those that MLX's tools have packed too, and
  written so that these read them.

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
  alias Emily.Native.Options
  alias Emily.Quantization.Model
  alias Emily.Safetensors.{Header, JSON, Packed, Tensor, Writer}

  @compile {:no_warn_undefined,
            [
              Axon,
              Bumblebee,
              Bumblebee.Conversion.PyTorchParams,
              Bumblebee.HuggingFace.Transformers.Model
            ]}

  @doc """
  The tensors of a file, by name, each still in it: `Nx.to_tensor/1` reads one onto `Emily.Backend`, or raises
  an `ArgumentError` with its name where it cannot be read.

  ## Options

    * `:device` - `:cpu`, `:gpu` or `{:gpu, index}`; MLX's default device without it

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
    fun = "Emily.Safetensors.read!/2"
    Package.require!(fun, [:jason])
    opts = Options.validate!(opts, [:device], fun)
    path = Options.path!(path, fun)
    Header.read!(path, Emily.Backend.init(opts)[:device])
  end

  @doc """
  `Bumblebee.load_model/2` for a folder, its `model.safetensors` (or the files of its
  `model.safetensors.index.json`) read by `read!/2`.

      {:ok, model_info} = Emily.Safetensors.load_model("/models/all-MiniLM-L6-v2")

  Each tensor of the files is read once, also where two layers share it. The parameters are computed
  when it returns: what was read in another type than the model's is not kept.

  A folder of a cache of Hugging Face's, `models--ORG--NAME`, is one too: its main revision is taken. Nothing is fetched.

  ## Packed weights

  Weights that MLX's tools have packed, as those of `mlx-community` are, stay so, as `Emily.QuantizedWeight`s of exactly
  the file's numbers, and the model's layers multiply with them as they are:

      {:ok, model_info} = Emily.Safetensors.load_model("/models/Qwen3-0.6B-4bit")
      {:ok, tokenizer} = Bumblebee.load_tokenizer({:local, "/models/Qwen3-0.6B-4bit"})

  They are those with `.scales` beside their `.weight`. `quantization` in `config.json` says their mode, bits and groups,
  for all layers or under a layer's name for that one. A packed weight that the model has no place for, one that
  does not fit what `config.json` says, and one without its scales raise an `ArgumentError` with its name.

  ## Options

    * `:device` - as in `read!/2`
    * `:spec`, `:module`, `:architecture`, `:type`, `:log_params_diff` - as in `Bumblebee.load_model/2`. `:type` is that
      of what is not packed
  """
  @spec load_model(Path.t(), keyword()) ::
          {:ok, Bumblebee.model_info()} | {:error, String.t()}
  def load_model(folder, opts \\ []) do
    fun = "Emily.Safetensors.load_model/2"
    Package.require!(fun, [:bumblebee, :axon, :jason])
    names = [:device, :spec, :module, :architecture, :type, :log_params_diff]
    opts = Options.validate!(opts, names, fun)
    folder = folder |> Options.path!(fun) |> revision()

    with {:ok, spec} <- spec(folder, opts) do
      model = Bumblebee.build_model(spec, Keyword.take(opts, [:type]))
      mapping = Bumblebee.HuggingFace.Transformers.Model.params_mapping(spec)
      device = Keyword.take(opts, [:device])
      tensors = for path <- paths(folder), tensor <- tensors(path, device), into: %{}, do: tensor
      {packed, tensors} = Packed.split(tensors, folder, device)

      params =
        Bumblebee.Conversion.PyTorchParams.load_params!(
          model,
          spec.__struct__.input_template(spec),
          folder,
          [
            params_mapping: mapping,
            loader_fun: fn ^folder -> tensors end,
            backend: {Emily.Backend, device}
          ] ++ Keyword.take(opts, [:log_params_diff])
        )

      params = Packed.place(params, packed, model, mapping)
      compute(params)
      model = if packed == %{}, do: model, else: Model.rewrite(model)
      {:ok, %{model: model, params: params, spec: spec}}
    end
  end

  @doc """
  Writes a model to a folder, from which `load_model/2` and MLX's tools, such as `mlx-lm`, read it.

      {:ok, model_info} = Emily.Safetensors.load_model("/models/SmolLM2-135M-Instruct")
      quantized = Emily.Quantization.quantize(model_info, bits: 4, group_size: 64)
      Emily.Safetensors.save_model(quantized, "/models/mine", from: "/models/SmolLM2-135M-Instruct")

  The folder gets a `model.safetensors` with the parameters under the names that the models of Hugging Face have, packed
  weights as `.weight`, `.scales` and `.biases`, and a `config.json` with their `quantization`.

  ## Options

    * `:from` - required: the folder that the model is from. Its `config.json` is taken over but for `quantization`, and its
      tokenizer and templates (`*.json`, `*.jinja`, `*.txt`, `*.model`) are copied

  Raises an `ArgumentError` where a layer cannot be written: one that is a part of another tensor in files, as
  the queries of Phi 3, or one that shares its tensor with another in files, as a head with embeddings that it is tied to,
  and has other numbers. `File.Error` where a file cannot be read or written.
  """
  @spec save_model(Bumblebee.model_info(), Path.t(), from: Path.t()) :: :ok
  def save_model(model_info, folder, opts) do
    fun = "Emily.Safetensors.save_model/3"
    Package.require!(fun, [:bumblebee, :axon, :jason, :safetensors])
    opts = Options.validate!(opts, [:from], fun)

    unless opts[:from],
      do: raise(ArgumentError, "#{fun} needs from:, the folder that the model is from")

    from = opts[:from] |> Options.path!(fun) |> revision()
    Writer.write(model_info, Options.path!(folder, fun), from)
  end

  # In a cache of Hugging Face's, the folder of what main stands for.
  defp revision(folder) do
    main = Path.join([folder, "refs", "main"])

    with true <- File.regular?(main),
         name = main |> File.read!() |> String.trim(),
         true <- Path.basename(name) == name,
         snapshot = Path.join([folder, "snapshots", name]),
         true <- File.dir?(snapshot) do
      snapshot
    else
      _ -> folder
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
         {:ok, %{"weight_map" => %{} = map}} <- JSON.read!(index) do
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
