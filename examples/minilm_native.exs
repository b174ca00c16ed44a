# Sentence embeddings with all-MiniLM-L6-v2, written out over the binding:
# no Nx and no Hex package, only Elixir and Emily.Native.
#
#     mix run examples/minilm_native.exs
#     mix run examples/minilm_native.exs --device gpu "A first sentence" "A second one"
#
# From top to bottom: the weights, the tokenizer, the transformer, the script.

Code.require_file("support/demo.ex", __DIR__)

defmodule MiniLM.Safetensors do
  @moduledoc """
  Reads the weights of a safetensors file: eight bytes with the header's length,
  the header, then the numbers of all tensors one after the other.
  """

  @dtypes %{"F32" => :f32, "F16" => :f16, "BF16" => :bf16, "I64" => :s64}

  @doc """
  The file's tensors as a map from name to array, each on `device`.
  """
  def read!(path, device) do
    <<size::little-64, header::binary-size(size), data::binary>> = File.read!(path)

    for [_, name, dtype, shape, first, last] <- Regex.scan(entry(), header), into: %{} do
      first = String.to_integer(first)
      bytes = binary_part(data, first, String.to_integer(last) - first)
      shape = shape |> String.split(",", trim: true) |> Enum.map(&String.to_integer/1)

      {name, Emily.Native.from_binary(bytes, shape, Map.fetch!(@dtypes, dtype), device)}
    end
  end

  # The header is JSON of this one form. OTP has a JSON module only since 27,
  # and this file also runs on 26.
  defp entry do
    ~r/"([^"]+)":\{"dtype":"(\w+)","shape":\[([\d,]*)\],"data_offsets":\[(\d+),(\d+)\]\}/
  end
end

defmodule MiniLM.Tokenizer do
  @moduledoc """
  The WordPiece tokenizer of uncased BERT models.

  A text is cleaned, lower-cased and stripped of accents, cut into words and
  punctuation marks, and each word into the longest pieces that the vocabulary
  knows: `embeddings` becomes `em ##bed ##ding ##s`.
  """

  defstruct [:ids, :max_length]

  @longest_word 100

  @doc """
  Loads the vocabulary: a text file with one piece a line, whose number is its id.

  Texts are cut to `max_length` ids, the opening `[CLS]` and closing `[SEP]` included.
  """
  def load!(vocab_path, max_length) do
    pieces = vocab_path |> File.read!() |> String.split("\n", trim: true)
    %__MODULE__{ids: pieces |> Enum.with_index() |> Map.new(), max_length: max_length}
  end

  @doc """
  The ids of one text.
  """
  def encode(%__MODULE__{ids: ids} = tokenizer, text) do
    pieces =
      special()
      |> Regex.split(text, include_captures: true)
      |> Enum.flat_map(&pieces(&1, ids))
      |> Enum.take(tokenizer.max_length - 2)

    Enum.map(["[CLS]"] ++ pieces ++ ["[SEP]"], &Map.fetch!(ids, &1))
  end

  defp pieces(text, ids) do
    if text =~ special() do
      [text]
    else
      Enum.flat_map(words(normalize(text)), &word_pieces(&1, ids))
    end
  end

  defp normalize(text) do
    text
    |> String.replace(["\t", "\n", "\r"], " ")
    |> String.replace(~r/[\p{Cc}\p{Cf}\p{Co}\x{FFFD}]/u, "")
    |> String.replace(ideograph(), " \\0 ")
    |> String.normalize(:nfd)
    |> String.replace(~r/\p{Mn}/u, "")
    |> String.downcase()
  end

  defp words(text), do: word() |> Regex.scan(text) |> List.flatten()

  defp special, do: ~r/\[(?:PAD|UNK|CLS|SEP|MASK)\]/

  # Each of these characters is a word of its own.
  defp ideograph do
    ~r/[\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}]/u
  end

  # One punctuation mark, or a run of what is neither punctuation nor space. To BERT
  # the ASCII symbols are punctuation too, which by Unicode's categories they are not.
  defp word, do: ~r/[\p{P}$+<=>^`|~]|[^\s\p{Z}\p{P}$+<=>^`|~]+/u

  defp word_pieces(word, ids) do
    chars = String.codepoints(word)
    pieces = if length(chars) <= @longest_word, do: split_word(chars, "", ids, [])
    pieces || ["[UNK]"]
  end

  # nil when some part of the word is unknown: then all of it is.
  defp split_word([], _prefix, _ids, pieces), do: Enum.reverse(pieces)

  defp split_word(chars, prefix, ids, pieces) do
    fits = Enum.find(length(chars)..1//-1, &Map.has_key?(ids, piece(chars, &1, prefix)))

    if fits do
      piece = piece(chars, fits, prefix)
      split_word(Enum.drop(chars, fits), "##", ids, [piece | pieces])
    end
  end

  defp piece(chars, count, prefix), do: prefix <> Enum.join(Enum.take(chars, count))
end

defmodule MiniLM do
  @moduledoc """
  all-MiniLM-L6-v2: six BERT layers, then the mean over the tokens, of length one.

  Every function below describes its result to MLX as an expression, a nested
  tuple such as `{:add, x, y}`, over arrays that are references. MLX computes
  nothing until `Emily.Native.to_binary/1` asks for the numbers.
  """

  alias Emily.Native

  defstruct [:tokenizer, :weights, :layers, :heads, :eps, :device]

  # The longest input that the model was trained for (sentence_bert_config.json).
  @max_length 256
  @batch_size 32

  @doc """
  Loads the model from a folder that holds `config.json`, `vocab.txt` and `model.safetensors`.
  """
  def load!(dir, device) do
    config = File.read!(Path.join(dir, "config.json"))

    %__MODULE__{
      tokenizer: MiniLM.Tokenizer.load!(Path.join(dir, "vocab.txt"), @max_length),
      weights: MiniLM.Safetensors.read!(Path.join(dir, "model.safetensors"), device),
      layers: trunc(setting!(config, "num_hidden_layers")),
      heads: trunc(setting!(config, "num_attention_heads")),
      eps: setting!(config, "layer_norm_eps"),
      device: device
    }
  end

  defp setting!(config, name) do
    case Regex.run(~r/"#{name}":\s*([-+.\deE]+)/, config) do
      [_, number] -> number |> Float.parse() |> elem(0)
      nil -> raise ArgumentError, "config.json has no number named #{name}"
    end
  end

  @doc """
  The embeddings of a list of texts, each a list of 384 floats of length one.
  """
  def embed(%__MODULE__{} = model, texts) do
    texts
    |> Enum.map(&MiniLM.Tokenizer.encode(model.tokenizer, &1))
    |> Enum.chunk_every(@batch_size)
    |> Enum.flat_map(&rows(forward(model, &1)))
  end

  @doc """
  The cosine similarity of each embedding with each other one, a list of rows.
  """
  def similarities([first | _] = embeddings, device) do
    floats = for embedding <- embeddings, x <- embedding, into: <<>>, do: <<x::float-32-native>>
    x = Native.from_binary(floats, [length(embeddings), length(first)], :f32, device)

    # The embeddings are of length one: their products are the cosines.
    [products] = Native.run([{:matmul, x, {:transpose, x, [1, 0]}}], device)
    rows(products)
  end

  # A matrix as a list of its rows.
  defp rows(array) do
    {_, width} = Native.shape(array)
    floats = for <<x::float-32-native <- Native.to_binary(array)>>, do: x
    Enum.chunk_every(floats, width)
  end

  @doc """
  The embeddings of a batch of id lists as one array of shape `{batch, width}`.

  Shorter lists are padded to the longest; attention and mean leave the padding out.
  """
  def forward(%__MODULE__{device: device} = model, batch) do
    length = batch |> Enum.map(&length/1) |> Enum.max()
    ids = for ids <- batch, id <- pad(ids, length), into: <<>>, do: <<id::32-native>>
    real = for ids <- batch, x <- pad(Enum.map(ids, fn _ -> 1 end), length), into: <<>>, do: <<x>>

    shape = [length(batch), length]
    ids = Native.from_binary(ids, shape, :s32, device)
    mask = Native.from_binary(real, shape, :bool, device)

    Enum.reduce(0..(model.layers - 1), embed_tokens(model, ids, length), fn layer, x ->
      x |> attention(mask, model, layer) |> feed_forward(model, layer)
    end)
    |> mean(mask, model)
    |> unit_length(model)
  end

  defp pad(list, length), do: list ++ List.duplicate(0, length - length(list))

  # Word, position and segment (always the first one) are looked up and added.
  defp embed_tokens(model, ids, length) do
    words = {:take, weight(model, "embeddings.word_embeddings"), ids, 0}
    positions = first_rows(weight(model, "embeddings.position_embeddings"), length)
    segment = first_rows(weight(model, "embeddings.token_type_embeddings"), 1)

    {:add, {:add, words, positions}, segment}
    |> layer_norm(model, "embeddings.LayerNorm")
    |> run(model)
  end

  defp first_rows(table, count) do
    {_, width} = Native.shape(table)
    {:slice, table, [0, 0], [count, width], [1, 1]}
  end

  # Each token takes in what the tokens that it attends to have to say.
  defp attention(x, mask, model, layer) do
    name = "encoder.layer.#{layer}.attention"
    {batch, length, width} = Native.shape(x)
    size = div(width, model.heads)

    # {batch, length, heads * size} to {batch, heads, length, size} and back
    split = &{:transpose, {:reshape, &1, [batch, length, model.heads, size]}, [0, 2, 1, 3]}
    merge = &{:reshape, {:transpose, &1, [0, 2, 1, 3]}, [batch, length, width]}

    query = x |> dense(model, "#{name}.self.query") |> split.()
    key = x |> dense(model, "#{name}.self.key") |> split.()
    value = x |> dense(model, "#{name}.self.value") |> split.()
    mask = {:reshape, mask, [batch, 1, 1, length]}

    {:attention, query, key, value, 1 / :math.sqrt(size), mask, nil}
    |> merge.()
    |> dense(model, "#{name}.output.dense")
    |> add(x)
    |> layer_norm(model, "#{name}.output.LayerNorm")
    |> run(model)
  end

  # Each token is worked on by itself: widened, bent by GELU, narrowed again.
  defp feed_forward(x, model, layer) do
    name = "encoder.layer.#{layer}"
    wide = x |> dense(model, "#{name}.intermediate.dense") |> run(model)

    wide
    |> gelu()
    |> dense(model, "#{name}.output.dense")
    |> add(x)
    |> layer_norm(model, "#{name}.output.LayerNorm")
    |> run(model)
  end

  # The mean over the tokens that are no padding.
  defp mean(x, mask, model) do
    weights = {:expand_dims, {:astype, mask, :f32}, [2]}

    run(
      {:divide, {:sum, {:multiply, x, weights}, [1], false}, {:sum, weights, [1], false}},
      model
    )
  end

  defp unit_length(x, model) do
    run({:divide, x, {:sqrt, {:sum, {:square, x}, [-1], true}}}, model)
  end

  # x * P(X <= x) for a normal X, exactly: through the error function.
  defp gelu(x) do
    erf = {:erf, {:multiply, x, number(1 / :math.sqrt(2))}}
    {:multiply, {:multiply, x, number(0.5)}, {:add, erf, number(1.0)}}
  end

  defp dense(x, model, name) do
    {:add, {:matmul, x, {:transpose, weight(model, name), [1, 0]}}, bias(model, name)}
  end

  defp layer_norm(x, model, name) do
    {:layer_norm, x, weight(model, name), bias(model, name), model.eps}
  end

  defp add(x, y), do: {:add, x, y}
  defp number(x), do: {:full, [], x, :f32}
  defp weight(model, name), do: Map.fetch!(model.weights, "#{name}.weight")
  defp bias(model, name), do: Map.fetch!(model.weights, "#{name}.bias")

  defp run(expression, model) do
    [array] = Native.run([expression], model.device)
    array
  end
end

# A test that requires this file wants the modules only.
unless Process.whereis(ExUnit.Server) do
  {device, sentences} = Demo.arguments!(System.argv())
  model_dir = Demo.model_dir!()

  model = Demo.step("Loading the model", fn -> MiniLM.load!(model_dir, device) end)

  embeddings =
    Demo.step("Embedding the sentences", fn ->
      MiniLM.embed(model, sentences)
    end)

  time = Demo.step("Timing", fn -> Demo.time(fn -> MiniLM.embed(model, sentences) end) end)

  Demo.report(
    "all-MiniLM-L6-v2 over Emily.Native, without Nx",
    sentences,
    MiniLM.similarities(embeddings, device),
    time,
    device,
    %{}
  )
end
