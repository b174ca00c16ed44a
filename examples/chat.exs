# Chats with the model of a GGUF file in the terminal; without one, with SmolLM2-135M-Instruct.
#
#     mix run examples/chat.exs
#     mix run examples/chat.exs Qwen3-0.6B-Q8_0.gguf --system "Answer in French."
#     echo "What is the capital of France?" | mix run examples/chat.exs
#     mix run examples/chat.exs --device gpu --max-new-tokens 500
#
# How turns are written for the model is told by the file's chat template; --template names a form where it cannot be.
# The answer comes token by token. Where the input is no terminal, each of its lines is a message, the
# answers go to the standard output, and everything else to the error output. An empty line ends it.

Code.require_file("support/demo.ex", __DIR__)
Code.require_file("support/turns.ex", __DIR__)
Code.require_file("support/chat.ex", __DIR__)

defmodule Terminal do
  def interactive?, do: match?({:ok, _}, :io.columns())

  # Only a terminal can draw a line again.
  def progress(done, total) do
    if interactive?(), do: ProgressBar.render(done, total, left: "Loading |", suffix: :bytes)
  end

  def note(text), do: IO.puts(if(interactive?(), do: :stdio, else: :stderr), text)

  def message do
    case IO.gets(if interactive?(), do: "\nyou> ", else: "") do
      text when is_binary(text) -> String.trim(text)
      _end_of_file -> ""
    end
  end

  def summary(answer) do
    "[#{answer.tokens} tokens: the first after #{Float.round(answer.first_after, 2)} s, " <>
      "then #{Float.round(answer.rate, 1)} tokens per second; MLX holds #{megabytes(:active)} MB, " <>
      "at most #{megabytes(:peak)}]"
  end

  defp megabytes(what), do: round(Emily.Native.memory()[what] / 1.0e6)

  def chat(chat) do
    message = message()

    if message != "" do
      chat = Chat.say(chat, "user", message)
      answer = Chat.answer(chat, &IO.write/1)
      IO.puts("")
      note(summary(answer))
      chat |> Chat.say("assistant", answer.text) |> chat()
    end
  end
end

switches = [device: :string, max_new_tokens: :integer, system: :string, template: :string]

{options, arguments} =
  try do
    OptionParser.parse!(System.argv(), strict: switches)
  rescue
    error in OptionParser.ParseError -> Demo.stop(Exception.message(error))
  end

path =
  case arguments do
    [] -> Demo.smollm2!()
    [path] -> if(File.regular?(path), do: path, else: Demo.stop("there is no file #{path}"))
    _ -> Demo.stop("one file at most: #{Enum.join(arguments, " ")}")
  end

form =
  with name when name != nil <- options[:template] do
    Enum.find(Turns.forms(), &(Atom.to_string(&1) == name)) ||
      Demo.stop("--template #{name} is none of #{Enum.join(Turns.forms(), ", ")}")
  end

device = Demo.device!(options[:device])
max_new_tokens = options[:max_new_tokens] || 256
if max_new_tokens < 1, do: Demo.stop("--max-new-tokens must be at least 1")

Nx.global_default_backend({Emily.Backend, device: device})
Terminal.note("#{Path.basename(path)} on #{device}")

chat =
  Chat.start!(path,
    device: device,
    max_new_tokens: max_new_tokens,
    form: form,
    system: options[:system],
    progress: &Terminal.progress/2
  )

Terminal.note("Say something; an empty line ends the conversation.")
Terminal.chat(chat)
