defmodule Chat do
  @moduledoc """
  A conversation with a language model of a GGUF file.
  """

  # Prompts are padded to the smallest of these that holds them; of longer ones the end is kept.
  @lengths [64, 256, 1024]

  @doc """
  Loads the model of a GGUF file and starts a serving of it that streams.

  Returns the conversation before its first message: `:form`, a form of `Turns`, and `:messages`.

    * `:device` - where it runs
    * `:max_new_tokens` - the most tokens of an answer
    * `:form` - that of the file's template, without it
    * `:system` - what the model is told first; without it, what the file's template says
    * `:progress` - called with the bytes read so far and in all
  """
  def start!(path, opts) do
    {:ok, loaded} =
      Emily.GGUF.load_bumblebee(path, device: opts[:device], progress: opts[:progress])

    unless loaded[:generation_config], do: Demo.stop("the model of the file generates no text")
    template = loaded.chat_template

    form =
      with nil <- opts[:form], {:error, why} <- Turns.form(template) do
        Demo.stop("#{why}; name one by --template: #{Enum.join(Turns.forms(), ", ")}")
      else
        {:ok, form} -> form
        form -> form
      end

    tokenizer = Bumblebee.configure(loaded.tokenizer, truncate_direction: :left)
    config = Bumblebee.configure(loaded.generation_config, max_new_tokens: opts[:max_new_tokens])

    serving =
      loaded.model_info
      |> Emily.Bumblebee.FastKernels.apply()
      |> Bumblebee.Text.generation(tokenizer, config,
        compile: [batch_size: 1, sequence_length: @lengths],
        stream: true,
        stream_done: true,
        defn_options: [compiler: Emily.Compiler]
      )

    {:ok, _} = Nx.Serving.start_link(serving: serving, name: __MODULE__, batch_timeout: 0)
    system = opts[:system] || Turns.system(template)
    %{form: form, messages: if(system, do: [{"system", system}], else: [])}
  end

  @doc "Adds a message of a role to a conversation."
  def say(chat, role, text), do: %{chat | messages: chat.messages ++ [{role, text}]}

  @doc """
  Answers the last message: gives each piece of text to `show` as it comes.

  Returns the answer, its number of tokens, the seconds until the first piece, and the tokens a second after it.
  """
  def answer(chat, show) do
    start = now()

    {pieces, first, tokens} =
      __MODULE__
      |> Nx.Serving.batched_run(Turns.text(chat.form, chat.messages))
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
