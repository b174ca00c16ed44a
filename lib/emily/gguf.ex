defmodule Emily.GGUF do
  @moduledoc """
  Reads [GGUF](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) files, tensors straight into MLX's memory.

  They may be of versions 2 and 3.

      gguf = Emily.GGUF.read!("model.gguf")
      gguf.metadata["general.architecture"]
      Emily.GGUF.tensor(gguf, "token_embd.weight", type: :bf16)

  `read!/1` reads the header only; `tensor/3` and `packed/3` read the bytes of the one tensor they are
  asked for. They never come to the BEAM's heap, and the file is not mapped: what changes it
  afterwards may give wrong numbers or an error, and cannot end the VM.
  `load_bumblebee/2`, where Bumblebee is a dependency, makes a model of the file.

  ## Metadata

  `metadata` is a map of keys to integers, floats (or `:nan`, `:infinity`, `:neg_infinity`), booleans,
  strings and lists of them; `types` has the type of each: `:u8` to `:u64`, `:s8` to `:s64`, `:f32`,
  `:f64`, `:bool`, `:string`, or `{:array, type}`.

  ## Types of tensors

  F32, F16, BF16, I8, I16, I32, I64, and of the quantized ones Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K,
  Q6_K, IQ4_NL, IQ4_XS and MXFP4. Tensors of other types are listed, and reading one raises.

  ## Errors

  `File.Error` where the file cannot be read. `ArgumentError`, which names the file, the place and
  the problem, where it is broken: cut off, with offsets beyond its end, tensors that overlap,
  names that stand twice, strings that are not UTF-8. Little of a file is believed: its header may take
  64 MiB, and a list grows only as its items are found.
  """

  alias Emily.GGUF.{Blocks, Header, Tensor}
  alias Emily.{Native, Quantization, QuantizedWeight}

  @enforce_keys [:path, :version, :metadata, :types, :tensors]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          path: Path.t(),
          version: 2 | 3,
          metadata: %{String.t() => term()},
          types: %{String.t() => atom() | {:array, term()}},
          tensors: %{String.t() => Tensor.t()}
        }

  @doc """
  Reads the header of a file.

  ## Examples

  A file with a tensor of two elements, which begins at the first multiple of 32 behind the header:

      iex> path = Path.join(System.tmp_dir!(), "emily-read-\#{System.pid()}.gguf")
      iex> string = fn text -> <<byte_size(text)::64-little, text::binary>> end
      iex> header = ["GGUF", <<3::32-little, 1::64-little, 1::64-little>>, string.("answer"),
      ...>   <<4::32-little, 42::32-little>>, string.("w"),
      ...>   <<1::32-little, 2::64-little, 0::32-little, 0::64-little>>]
      iex> padding = <<0::size(8 * (96 - IO.iodata_length(header)))>>
      iex> File.write!(path, [header, padding, <<1.5::float-32-little, -2.0::float-32-little>>])
      iex> gguf = Emily.GGUF.read!(path)
      iex> {gguf.metadata, gguf.types}
      {%{"answer" => 42}, %{"answer" => :u32}}
      iex> {gguf.tensors["w"].type, gguf.tensors["w"].shape}
      {:f32, {2}}
      iex> Emily.GGUF.tensor(gguf, "w") |> Nx.to_list()
      [1.5, -2.0]
      iex> File.rm!(path)
  """
  @spec read!(Path.t()) :: t()
  def read!(path) do
    path = Native.Options.path!(path, "Emily.GGUF.read!/1")
    struct!(__MODULE__, Map.put(Header.read!(path), :path, path))
  end

  @doc """
  A tensor of the file on `Emily.Backend`, dequantized where it is quantized.

  ## Options

    * `:type` - the type of what is no integer: `:f32`, `:f16` or `:bf16`. Default: the file's own,
      and `:f32` for a quantized tensor. What is quantized is computed in f32 and then rounded
    * `:device` - `:cpu`, `:gpu` or `{:gpu, index}`; MLX's default device without it

  Raises `ArgumentError` where the file has no such tensor or its type cannot be read.
  """
  @spec tensor(t(), String.t(), keyword()) :: Nx.Tensor.t()
  def tensor(%__MODULE__{} = gguf, name, opts \\ []) do
    opts = Native.Options.validate!(opts, [:type, :device], "Emily.GGUF.tensor/3")
    tensor = fetch!(gguf, name, Blocks.readable())
    device = device(opts)
    dtype = dtype(Blocks.plain(tensor.type), opts[:type])
    numbers = read(gguf, tensor, dtype, device)
    # Else the bytes in the file's type would stay beside the numbers.
    Native.eval(numbers.data.ref)
    numbers
  end

  @doc """
  A quantized tensor as an `Emily.QuantizedWeight`, whose blocks are the file's bytes.

  Its `:mode` is `"ggml_"` and the name of the type, such as `"ggml_q4_k"`; its `:value` has the tensor's shape, in the last
  axis the bytes of a row. No number is rounded, and none is written out: `Emily.Quantization` multiplies with the bytes,
  on a CPU.

  ## Options

    * `:mode` - `"affine"` for a weight in MLX's affine mode with groups of 32, which Q4_0, Q4_1 and Q8_0 have: the same numbers in
      another order, which a GPU multiplies with
    * `:type` - in that mode the type of scales and biases, `:f32` (default), `:f16` or `:bf16`. f16 is the file's own
      and exact too, but for biases beyond its range, which raise
    * `:device` - as in `tensor/3`

  ## Example

  One row of 32 elements in Q8_0, with the scale 0.5 and the quants 0, 1, ... 31:

      iex> path = Path.join(System.tmp_dir!(), "emily-packed-\#{System.pid()}.gguf")
      iex> header = ["GGUF", <<3::32-little, 1::64-little, 0::64-little, 1::64-little, "w">>,
      ...>   <<2::32-little, 32::64-little, 1::64-little, 8::32-little, 0::64-little>>]
      iex> padding = <<0::size(8 * (96 - IO.iodata_length(header)))>>
      iex> File.write!(path, [header, padding, <<0.5::float-16-little>>, Enum.to_list(0..31)])
      iex> gguf = Emily.GGUF.read!(path)
      iex> weight = Emily.GGUF.packed(gguf, "w")
      iex> {weight.mode, Nx.shape(weight.value)}
      {"ggml_q8_0", {1, 34}}
      iex> Emily.QuantizedWeight.to_dense(weight)[[0, 0..3]] |> Nx.to_list()
      [0.0, 0.5, 1.0, 1.5]
      iex> affine = Emily.GGUF.packed(gguf, "w", mode: "affine")
      iex> File.rm!(path)
      iex> {Nx.shape(affine.value), Nx.to_list(affine.scales), Nx.to_list(affine.biases)}
      {{1, 8}, [[0.5]], [[-64.0]]}
  """
  @spec packed(t(), String.t(), keyword()) :: QuantizedWeight.t()
  def packed(%__MODULE__{} = gguf, name, opts \\ []) do
    opts = Native.Options.validate!(opts, [:device, :mode, :type], "Emily.GGUF.packed/3")

    case {opts[:mode], opts[:type]} do
      {nil, nil} ->
        gguf |> fetch!(name, Blocks.quantized()) |> weight(gguf, device(opts))

      {"affine", type} ->
        affine(gguf, name, type || :f32, device(opts))

      {nil, _} ->
        raise ArgumentError, "Emily.GGUF: blocks have no :type; mode: \"affine\" has"

      {mode, _} ->
        raise ArgumentError, "Emily.GGUF: :mode must be \"affine\", got: #{inspect(mode)}"
    end
  end

  defp affine(gguf, name, type, device) do
    tensor = fetch!(gguf, name, Blocks.affine())
    dtype = float(type)
    {_elements, bytes} = Blocks.size(tensor.type)
    blocks = div(tensor.length, bytes)
    raw = Native.from_file(gguf.path, tensor.offset, [blocks, bytes], :u8, device)

    {packed, scales, biases} =
      Blocks.pack(tensor.type, raw, blocks, Tuple.to_list(tensor.shape), dtype)

    axes = Enum.to_list(0..(tuple_size(tensor.shape) - 1))
    overflow = {:any, {:logical_and, {:isinf, biases}, {:isfinite, scales}}, axes, false}
    [overflow | refs] = Native.run([overflow, packed, scales, biases], Emily.Stream.of(device))
    Native.eval([overflow | refs])

    if dtype == :f16 and Native.item(overflow) == 1 do
      raise ArgumentError,
            "Emily.GGUF: #{gguf.path}: #{inspect(name)} has biases that f16 cannot hold; " <>
              "take type: :f32"
    end

    [value, scales, biases] = Enum.map(refs, &wrap(&1, device))
    bits = Blocks.width(tensor.type)

    %QuantizedWeight{
      value: value,
      scales: scales,
      biases: biases,
      bits: bits,
      group_size: 32
    }
  end

  @doc """
  The chat template of a file, as text in the language Jinja; `nil` where it has none.

  `name` is that of one of several templates, such as `"tool_use"`, where a file has them.

  A template says how the turns of a conversation are written for the model. Nothing here interprets Jinja:
  `examples/support/chat.ex` has the common forms.

  ## Example

      iex> path = Path.join(System.tmp_dir!(), "emily-template-\#{System.pid()}.gguf")
      iex> string = fn text -> <<byte_size(text)::64-little, text::binary>> end
      iex> header = ["GGUF", <<3::32-little, 0::64-little, 1::64-little>>,
      ...>   string.("tokenizer.chat_template"), <<8::32-little>>, string.("{{ messages }}")]
      iex> File.write!(path, header)
      iex> path |> Emily.GGUF.read!() |> Emily.GGUF.chat_template()
      "{{ messages }}"
      iex> File.rm!(path)
  """
  @spec chat_template(t(), String.t() | nil) :: String.t() | nil
  def chat_template(%__MODULE__{} = gguf, name \\ nil) do
    key = if name, do: "tokenizer.chat_template.#{name}", else: "tokenizer.chat_template"
    Emily.GGUF.Metadata.get(gguf, key, :string)
  end

  @doc """
  Loads a model, its tokenizer and its generation configuration for Bumblebee from one file.

      {:ok, %{model_info: model_info, tokenizer: tokenizer, generation_config: config}} =
        Emily.GGUF.load_bumblebee("SmolLM2-135M-Instruct.Q4_1.gguf")

      serving =
        Bumblebee.Text.generation(model_info, tokenizer, config,
          defn_options: [compiler: Emily.Compiler]
        )

      Nx.Serving.run(serving, "The capital of France is")

  `model_info` has the `:model`, `:params` and `:spec` that `Bumblebee.load_model/2` gives, with the
  parameters on `Emily.Backend`, each read once: the output layer of a model with tied embeddings
  shares their memory. Kernels and embeddings that are quantized stay packed, as the `Emily.QuantizedWeight`s of
  `packed/3`, and the model's layers multiply with them as they are; all else is of `:type`. A GPU multiplies with Q4_0,
  Q4_1 and Q8_0 alone, in mode `"affine"`: others become dense there, and a notice in the log names them. It is a function of its own because Bumblebee's repositories are of two kinds,
  `{:hf, name}` and `{:local, folder}`.

  With a model that generates text come `:generation_config` and `:chat_template`, as `chat_template/2` gives it. The
  configuration ends a text at the file's tokens `eos` and `eot`; where a file names no `eot`, at those of
  `<|eot_id|>`, `<|im_end|>`, `<|end|>` and `<end_of_turn>` that it has, too.

  ## Architectures

  | architecture | models | of Bumblebee's |
  |---|---|---|
  | `"llama"` | Llama 1 to 3, Mistral, SmolLM, TinyLlama | `Bumblebee.Text.Llama` |
  | `"smollm3"` | SmolLM3 | `Bumblebee.Text.SmolLm3` |
  | `"qwen3"` | Qwen3 | `Bumblebee.Text.Qwen3` |
  | `"gemma"` | Gemma 1 | `Bumblebee.Text.Gemma` |
  | `"gemma3"` | Gemma 3, the text model | `Bumblebee.Text.Gemma3Text` |
  | `"phi3"` | Phi 3, Phi 4 mini | `Bumblebee.Text.Phi3` |
  | `"bert"` | BERT, BGE, MiniLM | `Bumblebee.Text.Bert`, its states |
  | `"nomic-bert"` | Nomic Embed 1 and 1.5 | `Bumblebee.Text.NomicBert`, its states |

  Bumblebee has no model of others, such as `"qwen2"` and `"gemma2"`. Of up to 256 blocks each, without rotary scaling, with
  the linear one (but for `"gemma3"`), Llama 3's (`rope_freqs.weight`) or Phi 3's (`rope_factors_long.weight` and
  `rope_factors_short.weight`). Bumblebee's `:attention_window_size` is one less than a file's window, whose own position counts.

  The models of the last two embed texts. Files have no parameters of the pooled state, so the model gives `:hidden_state`
  and no `:pooled_state`, and in the place of `:generation_config` there is `:pooling`, which says how the file's model is pooled, as
  `Bumblebee.Text.text_embedding/3` takes it under `:output_pool`, or `nil`:

      {:ok, %{model_info: model_info, tokenizer: tokenizer, pooling: pooling}} =
        Emily.GGUF.load_bumblebee("nomic-embed-text-v1.5.f16.gguf")

      Bumblebee.Text.text_embedding(model_info, tokenizer,
        output_attribute: :hidden_state,
        output_pool: pooling
      )

  ## Tokenizers

    * `"gpt2"`, bytes, by the rules (`tokenizer.ggml.pre`) `"gpt-2"`, `"default"`, `"smollm"`, `"llama-bpe"`, `"dbrx"`,
      `"smaug-bpe"`, `"qwen2"`, `"tekken"` and `"gpt-4o"`
    * `"llama"`, SentencePiece's pairs by their scores, with bytes for what it has not
    * `"bert"`, pieces of words

  Metadata and tensors are checked against each other before a model is built, and tokens while it is: what is not supported,
  missing, of another type or shape, or does not fit the rest raises an `ArgumentError` that names the field
  or the tensor. So does a project without Bumblebee.

  A process of its own reads the metadata and makes the tokenizer. Freed memory goes back to the system at the end, as by
  `Emily.Memory.clear_cache/0`.

  ## Options

    * `:type` - the type of the parameters and of what is computed: `:f32` (default), `:f16` or `:bf16`
    * `:dequantize` - when `true`, parameters that are quantized in the file become dense ones of `:type`. Defaults to
      `false`
    * `:device` - as in `tensor/3`
    * `:progress` - called with the bytes of tensors read so far and in all, after each tensor
  """
  @spec load_bumblebee(Path.t(), keyword()) ::
          {:ok,
           %{
             required(:model_info) => Bumblebee.model_info(),
             required(:tokenizer) => Bumblebee.Tokenizer.t(),
             optional(:generation_config) => Bumblebee.Text.GenerationConfig.t(),
             optional(:chat_template) => String.t() | nil,
             optional(:pooling) => :mean_pooling | :cls_token_pooling | :last_token_pooling | nil
           }}
  def load_bumblebee(path, opts \\ []), do: {:ok, Emily.GGUF.Bumblebee.load(path, opts)}

  defp read(gguf, tensor, dtype, device) do
    case Blocks.plain(tensor.type) do
      nil ->
        # A weight has two axes at least.
        %{tensor | shape: Tuple.insert_at(tensor.shape, 0, 1)}
        |> weight(gguf, device)
        |> QuantizedWeight.to_dense()
        |> Nx.as_type(dtype)
        |> Nx.reshape(tensor.shape)

      plain ->
        ref = Native.from_file(gguf.path, tensor.offset, tensor.shape, plain, device)
        [ref] = Native.run([{:astype, ref, dtype}], Emily.Stream.of(device))
        wrap(ref, device)
    end
  end

  # A quantized tensor's bytes.
  defp weight(%Tensor{type: type, offset: offset, shape: shape}, gguf, device) do
    ref = Native.from_file(gguf.path, offset, Blocks.bytes(type, shape), :u8, device)
    Quantization.Blocks.weight(type, wrap(ref, device), device)
  end

  defp fetch!(gguf, name, readable) do
    case gguf.tensors do
      %{^name => %Tensor{type: type} = tensor} ->
        if type not in readable do
          raise ArgumentError,
                "Emily.GGUF: #{gguf.path}: #{inspect(name)} is of type #{type}; " <>
                  "this reads #{Enum.join(readable, ", ")}"
        end

        tensor

      _ ->
        raise ArgumentError, "Emily.GGUF: #{gguf.path}: there is no tensor #{inspect(name)}"
    end
  end

  defp dtype(integer, nil) when integer in [:s8, :s16, :s32, :s64], do: integer

  defp dtype(integer, type) when integer in [:s8, :s16, :s32, :s64] do
    raise ArgumentError, "Emily.GGUF: :type is #{inspect(type)} for a tensor of integers"
  end

  defp dtype(own, type), do: float(type || own || :f32)

  defp float(type) when type in [:f32, {:f, 32}], do: :f32
  defp float(type) when type in [:f16, {:f, 16}], do: :f16
  defp float(type) when type in [:bf16, {:bf, 16}], do: :bf16

  defp float(type),
    do:
      raise(ArgumentError, "Emily.GGUF: :type must be :f32, :f16 or :bf16, got: #{inspect(type)}")

  defp device(opts), do: Emily.Backend.init(Keyword.take(opts, [:device]))[:device]

  defp wrap(ref, device) do
    Emily.Backend.tensor(Nx.template(Native.shape(ref), Native.dtype(ref)), ref, device)
  end
end
