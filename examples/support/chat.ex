defmodule Chat do
  @moduledoc """
  A conversation with SmolLM2-135M-Instruct.
  """

  # Prompts are padded to the smallest of these that holds them; of longer ones the end is kept.
  @lengths [64, 256, 1024]

  @system "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

  @doc """
  Loads the model of a GGUF file and starts a serving of it that streams. `progress` is called with
  the bytes read so far and in all.
  """
  def start!(path, device, max_new_tokens, progress) do
    {:ok, %{model_info: model_info, tokenizer: tokenizer, generation_config: config}} =
      Emily.GGUF.load_bumblebee(path, device: device, progress: progress)

    tokenizer = Bumblebee.configure(tokenizer, truncate_direction: :left)
    config = Bumblebee.configure(config, max_new_tokens: max_new_tokens)

    serving =
      model_info
      |> Emily.Bumblebee.FastKernels.apply()
      |> Bumblebee.Text.generation(tokenizer, config,
        compile: [batch_size: 1, sequence_length: @lengths],
        stream: true,
        stream_done: true,
        defn_options: [compiler: Emily.Compiler]
      )

    {:ok, _} = Nx.Serving.start_link(serving: serving, name: __MODULE__, batch_timeout: 0)
    :ok
  end

  @doc """
  The text that the model goes on from, as its own template has it. `messages` are pairs of a role
  (`"user"` or `"assistant"`) and what was said.
  """
  def prompt(messages) do
    turns =
      for {role, text} <- [{"system", @system} | messages],
          do: "<|im_start|>#{role}\n#{text}<|im_end|>\n"

    IO.iodata_to_binary([turns, "<|im_start|>assistant\n"])
  end

  @doc """
  Answers the messages: gives each piece of text to `show` as it comes.

  Returns the answer, its number of tokens, the seconds until the first piece, and the tokens a second after it.
  """
  def answer(messages, show) do
    start = now()

    {pieces, first, tokens} =
      __MODULE__
      |> Nx.Serving.batched_run(prompt(messages))
      |> Enum.reduce({[], nil, 0}, fn
        {:done, %{token_summary: summary}}, {pieces, first, _} ->
          {pieces, first, summary.output}

        piece, {pieces, first, tokens} ->
          show.(piece)
          {[piece | pieces], first || now(), tokens}
      end)

    first = first || now()

    %{
      text: pieces |> Enum.reverse() |> IO.iodata_to_binary() |> String.trim(),
      tokens: tokens,
      first_after: first - start,
      rate: max(tokens - 1, 0) / max(now() - first, 1.0e-6)
    }
  end

  defp now, do: System.monotonic_time(:microsecond) / 1.0e6
end
