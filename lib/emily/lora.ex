defmodule Emily.LoRA do
  @moduledoc """
  Low-rank adapters: a Bumblebee model is trained by a few numbers beside its weights, which stay as they are.

  A dense layer `x . W + b` becomes `x . W + b + alpha / rank * (dropout(x) . A) . B`, with `A` of shape `{in, rank}` and
  `B` of `{rank, out}`, as in [LoRA: Low-Rank Adaptation of Large Language Models](https://arxiv.org/abs/2106.09685). `A`
  begins with small random numbers and `B` with zeros, so that the model begins as it was. The kernels may be packed
  (`Emily.Quantization.quantize/2`, a GGUF file, a checkpoint of MLX's): that is QLoRA, and only the adapters have
  gradients and the optimiser's state.

      {:ok, info} = Bumblebee.load_model({:hf, "HuggingFaceTB/SmolLM2-135M"}, backend: Emily.Backend)
      info = info |> Emily.Quantization.quantize(bits: 8) |> Emily.LoRA.apply(rank: 8, layers: [~r/query|value/])
      # ... train info.model from info.params: Axon.ModelState.trainable_parameters/1 has the adapters alone ...
      Emily.LoRA.save(info, "adapter")

      # Later, on the same model:
      info = Emily.LoRA.load(info, "adapter")
      info = Emily.LoRA.merge(info)

  The adapters are parameters of their layers, `"lora_a"` and `"lora_b"`, in f32 whatever the type of the kernel, and
  `"lora_key"` is the key of the dropout, a state of the layer as that of `Axon.dropout/2`. All else is frozen, in the
  parameters and in the model, so that `Axon.Loop.trainer/4` trains the adapters only. `Axon.Loop` knows no packed
  weights: the guide on training has the step that trains beside these. The model's own dropouts, of which a checkpoint
  has no keys, get keys as well, so that a model is ready for training as it was loaded.

  Folders are those of [PEFT](https://github.com/huggingface/peft), tested with 0.21.2: `adapter_model.safetensors`, with the names that the model's parameters have in
  checkpoints of Hugging Face's, and `adapter_config.json`.
  """

  import Kernel, except: [apply: 2]

  alias Emily.LoRA.{Adapters, Peft}
  alias Emily.Native.Options
  alias Emily.Package

  @typedoc "What `Bumblebee.load_model/2` gives; without `:spec` it can be adapted, but not saved."
  @type model_info :: %{
          required(:model) => struct(),
          required(:params) => struct(),
          optional(atom()) => term()
        }

  @doc """
  Gives dense layers adapters, and freezes all else.

  `model_info` is a map with an Axon model under `:model` and its `Axon.ModelState` under `:params`. Those of its layers
  that `:layers` name and that are dense (`:dense`, and `:conv1d` of GPT-2) get adapters.

  ## Options

    * `:rank` - how many columns `A` has. Defaults to `8`
    * `:alpha` - the adapters' product is multiplied by `alpha / rank`. Defaults to `16`
    * `:dropout` - the rate at which elements of the adapters' input are dropped in training, at least 0 and less than 1.
      Defaults to `0.0`
    * `:layers` - a list of names and regular expressions: which dense layers. Defaults to
      `[~r/(query|value)$/]`, the projections of attention that most use
    * `:key` - the key of `Nx.Random` that the first `A` and the dropouts take, those of the model too where it has no
      keys for them. Defaults to `Nx.Random.key(0)`

  An `ArgumentError` names an option that is not one of these, a name that fits no dense layer, and a model that has
  adapters already.

  ## Examples

      iex> model = Axon.input("x", shape: {nil, 4}) |> Axon.dense(3, name: "value") |> Axon.dense(2, name: "head")
      iex> {init, predict} = Axon.build(model, seed: 1)
      iex> params = init.(Nx.template({1, 4}, :f32), Axon.ModelState.empty())
      iex> info = Emily.LoRA.apply(%{model: model, params: params}, rank: 2)
      iex> trainable = Axon.ModelState.trainable_parameters(info.params)
      iex> for {layer, parameters} <- trainable, {name, tensor} <- parameters, do: {layer, name, Nx.shape(tensor)}
      [{"value", "lora_a", {4, 2}}, {"value", "lora_b", {2, 3}}]
      iex> {_init, adapted} = Axon.build(info.model)
      iex> x = Nx.iota({2, 4}, type: :f32)
      iex> Nx.to_binary(adapted.(info.params, x)) == Nx.to_binary(predict.(params, x))
      true
  """
  @spec apply(model_info(), keyword()) :: model_info()
  def apply(model_info, opts \\ []) do
    fun = "Emily.LoRA.apply/2"
    Package.require!(fun, [:axon])
    Adapters.add(fun, model_info, Adapters.options!(fun, opts))
  end

  @doc """
  The model without adapters, whose kernels have their products added: `W + alpha / rank * A . B`.

  The sum is computed in f32 and rounded once to the kernel's type. A packed kernel becomes a dense one of the type that
  `Emily.QuantizedWeight.to_dense/1` gives; `Emily.Quantization.quantize/2` packs it again. Nothing is frozen afterwards but
  what the model itself had frozen.

      iex> model = Axon.input("x", shape: {nil, 4}) |> Axon.dense(3, name: "value")
      iex> {init, _predict} = Axon.build(model, seed: 1)
      iex> params = init.(Nx.template({1, 4}, :f32), Axon.ModelState.empty())
      iex> info = Emily.LoRA.apply(%{model: model, params: params})
      iex> merged = Emily.LoRA.merge(info)
      iex> merged.params.data |> Map.fetch!("value") |> Map.keys()
      ["bias", "kernel"]

  Raises an `ArgumentError` for a model without adapters.
  """
  @spec merge(model_info()) :: model_info()
  def merge(model_info) do
    fun = "Emily.LoRA.merge/1"
    Package.require!(fun, [:axon])
    Adapters.merge(fun, model_info)
  end

  @doc """
  Writes the adapters into a folder, as PEFT does.

  `model_info` needs the `:spec` that `Bumblebee.load_model/2` gives. The folder is made where it is not there.

  ## Options

    * `:base` - the name or the folder of the model that the adapters are for, which `adapter_config.json` keeps as
      `base_model_name_or_path`. Defaults to none

  Raises an `ArgumentError` for a model without adapters, or with one on a layer that has no name of its own in
  checkpoints (a part of a larger tensor, as the queries of Phi 3), `File.Error` where a file cannot be written.
  """
  @spec save(model_info(), Path.t(), base: String.t()) :: :ok
  def save(model_info, folder, opts \\ []) do
    fun = "Emily.LoRA.save/3"
    Package.require!(fun, [:axon, :bumblebee, :jason, :safetensors])
    base = Options.validate!(opts, [:base], fun)[:base]
    Peft.write(fun, model_info, Options.path!(folder, fun), base)
  end

  @doc """
  Gives a model the adapters of a folder that `save/3` or PEFT has written.

  Rank, alpha, dropout and layers are the folder's. The adapters are on `Emily.Backend`, in the file's types.

  ## Options

    * `:key` - the key of `Nx.Random` that the dropouts take in training. Defaults to `Nx.Random.key(0)`

  Raises an `ArgumentError` for a folder whose adapters are of another kind or for another model: the message names the
  setting, or the tensor. `File.Error` where a file cannot be read.
  """
  @spec load(model_info(), Path.t(), key: Nx.Tensor.t()) :: model_info()
  def load(model_info, folder, opts \\ []) do
    fun = "Emily.LoRA.load/3"
    Package.require!(fun, [:axon, :bumblebee, :jason, :safetensors])
    opts = Options.validate!(opts, [:key], fun)
    Peft.read(fun, model_info, Options.path!(folder, fun), opts)
  end
end
