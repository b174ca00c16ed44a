defmodule Attack.Files do
  @moduledoc false
  # Files that are not what they seem: an error, or the numbers that are in the file. No atoms are made of a file, and
  # no memory is taken beyond what its size allows.

  @behaviour Attack.Cases

  import Attack.Draw
  alias Attack.Files.{Mutation, Seeds, Special, Tokens}
  alias Emily.{GGUF, Native, Safetensors}
  alias Tokenizers.{Encoding, Tokenizer}

  @compile {:no_warn_undefined, [Encoding, Tokenizer]}

  # What a case may take on the heap and in MLX: so much for each byte of the file, and so much in any case.
  @factor 64
  @least 16_000_000

  @impl true
  def prepare(seed, folder) do
    Attack.Cases.seed(seed, 0)
    load_code()

    state = %{
      seed: seed,
      folder: folder,
      gguf: Seeds.gguf(),
      safetensors: Seeds.safetensors(),
      json: Seeds.json(),
      # The package tokenizers, which Bumblebee brings, makes them.
      tokenizers?: Code.ensure_loaded?(Bumblebee)
    }

    # What is only loaded when it is needed is there before atoms are counted.
    for kind <- [:gguf, :safetensors, :json], do: :ok = attempt(kind, write(state, state[kind]))

    if state.tokenizers?,
      do: for(bytes <- Tokens.whole(), do: :ok = read(:tokenizer, write(state, bytes)))

    for number <- 0..50, do: run(state, number)
    state
  end

  defp load_code do
    for app <- [:elixir, :nx, :complex, :jason, :emily, :telemetry, :tokenizers, :bumblebee] do
      Application.load(app)
      for module <- Application.spec(app, :modules) || [], do: Code.ensure_loaded(module)
    end
  end

  @impl true
  def describe(state, number) do
    {kind, what} = draw(state, number)
    "#{kind} " <> inspect(what, limit: :infinity, printable_limit: :infinity)
  end

  @impl true
  def run(state, number) do
    {kind, what} = draw(state, number)
    path = if kind == :special, do: Special.make(what, state), else: write(state, what)
    size = size(path)
    Native.reset_peak_memory()
    before = Native.memory().active
    atoms = :erlang.system_info(:atom_count)

    result = bounded(div(@factor * size + @least, 8), fn -> attempt(kind, path) end)
    more = :erlang.system_info(:atom_count) - atoms
    taken = Native.memory().peak - before

    cond do
      result != :ok ->
        fault(result, state, number)

      more > 0 ->
        fault({"#{kind}: #{more} atoms", ""}, state, number)

      taken > @factor * size + @least ->
        fault({"#{kind}: memory of MLX's", "#{taken} bytes"}, state, number)

      true ->
        :ok
    end
  after
    Special.clean(state)
  end

  defp draw(state, number) do
    Attack.Cases.seed(state.seed, number)

    case integer(1, 100) do
      n when n <= 3 -> {:special, Special.draw()}
      n when n <= 32 -> {:gguf, Mutation.mutate(state.gguf)}
      n when n <= 60 -> {:safetensors, Mutation.mutate(state.safetensors)}
      n when n <= 75 or not state.tokenizers? -> {:json, Mutation.mutate(state.json)}
      _ -> {:tokenizer, Tokens.draw()}
    end
  end

  defp write(state, bytes) do
    path = Path.join(state.folder, "file")
    File.write!(path, bytes)
    path
  end

  defp size(path) do
    case File.stat(path) do
      {:ok, %{type: :regular, size: size}} -> size
      _ -> 0
    end
  end

  # A process that takes more words than these is ended.
  defp bounded(words, fun) do
    options = [:monitor, max_heap_size: %{size: words, kill: true, error_logger: false}]
    {pid, monitor} = :erlang.spawn_opt(fn -> exit({:answer, fun.()}) end, options)

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:answer, answer}} ->
        answer

      {:DOWN, ^monitor, :process, ^pid, :killed} ->
        {"memory of the heap", "more than #{8 * words} bytes"}

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        {"exit", shown(reason)}
    end
  end

  defp fault({key, text}, state, number),
    do: {:fault, key, text <> "\n" <> describe(state, number)}

  @doc "Reads all of a file: `:ok`, or a fault's key and text."
  def attempt(kind, path) do
    case read(kind, path) do
      :ok -> :ok
      {:differs, name} -> {"#{kind}: other numbers", name}
    end
  rescue
    _ in [ArgumentError, File.Error, Emily.Error] ->
      :ok

    error ->
      {"#{kind}: #{inspect(error.__struct__)}", Exception.format(:error, error, __STACKTRACE__)}
  end

  defp read(:gguf, path) do
    gguf = GGUF.read!(path)
    bytes = bytes(path)

    results =
      for {name, tensor} <- gguf.tensors do
        quietly(fn -> GGUF.packed(gguf, name) |> packed() end)
        same(name, bytes, tensor, fn -> GGUF.tensor(gguf, name) end)
      end

    quietly(fn -> GGUF.chat_template(gguf) end)
    Enum.find(results, :ok, &(&1 != :ok))
  end

  defp read(:safetensors, path) do
    tensors = Safetensors.read!(path)
    bytes = bytes(path)
    entries = entries(bytes)

    results =
      for {name, lazy} <- tensors do
        %{"data_offsets" => [first, last]} = Map.new(entries[name])
        <<length::64-little, _::binary>> = bytes
        place = %{offset: 8 + length + first, length: last - first, type: lazy.type}
        same(name, bytes, place, fn -> Nx.to_tensor(lazy) end)
      end

    Enum.find(results, :ok, &(&1 != :ok))
  end

  defp read(:json, path) do
    with {:ok, object} <- Safetensors.JSON.read!(path) do
      # Another parser than the one in question is not at hand: whole is what comes out the same again.
      true = object == object |> Jason.encode!() |> Jason.decode!()
    end

    :ok
  end

  # Of whatever it makes of a text, it has the tokens.
  defp read(:tokenizer, path) do
    gguf = GGUF.read!(path)
    %{native_tokenizer: tokenizer} = GGUF.Tokenizer.build(gguf)

    case Tokenizer.encode(tokenizer, " ab é A1!\n</s>[SEP]<|end|>") do
      {:ok, encoding} ->
        ids = Encoding.get_ids(encoding)
        {:ok, _text} = Tokenizer.decode(tokenizer, ids)
        count = length(gguf.metadata["tokenizer.ggml.tokens"])
        if Enum.all?(ids, &(&1 in 0..(count - 1)//1)), do: :ok, else: {:differs, "tokens"}

      {:error, _} ->
        :ok
    end
  end

  # Each way by which a file is read.
  defp read(:special, path) do
    for kind <- [:gguf, :safetensors, :json], do: quietly(fn -> read(kind, path) end)
    quietly(fn -> Native.from_file(path, 0, {64}, :u8) |> Native.to_binary() end)
    :ok
  end

  # What is compared with; of a file that is changed or too large meanwhile there is none.
  defp bytes(path) do
    with %{size: size} when size < 1_000_000 <- File.stat!(path),
         do: File.read!(path),
         else: (_ -> raise File.Error, reason: :efbig, action: "read", path: path)
  end

  # The parser's own reading of where a tensor is: the last entry of a name counts, as it does for Emily's only entry.
  defp entries(<<length::64-little, json::binary-size(length), _::binary>>),
    do: Jason.decode!(json)

  # It has been cut off since it was read.
  defp entries(_bytes), do: raise(File.Error, reason: :eio, action: "read", path: "the file")

  # The numbers are those of the file, where they are so plain that they are its bytes.
  defp same(name, bytes, %{type: type, offset: offset, length: length}, tensor) do
    x = tensor.()
    plain? = type in [:f32, :f16, :bf16, :s8, :s16, :s32, :s64] or is_tuple(type)

    if not plain? or Nx.to_binary(x) == binary_part(bytes, offset, length),
      do: :ok,
      else: {:differs, name}
  rescue
    _ in [ArgumentError, Emily.Error] -> :ok
  end

  defp packed(weight), do: Nx.to_binary(weight.value)

  defp quietly(fun) do
    fun.()
  rescue
    _ in [ArgumentError, File.Error, Emily.Error] -> :refused
  end
end
