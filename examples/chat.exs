# Chats with SmolLM2-135M-Instruct in the terminal.
#
#     mix run examples/chat.exs
#     echo "What is the capital of France?" | mix run examples/chat.exs
#     mix run examples/chat.exs --device gpu --max-new-tokens 500
#
# The answer comes token by token. Where the input is no terminal, each of its lines is a message, the
# answers go to the standard output, and everything else to the error output. An empty line ends it.

Code.require_file("support/demo.ex", __DIR__)
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
      "then #{Float.round(answer.rate, 1)} tokens per second]"
  end

  def chat(messages) do
    message = message()

    if message != "" do
      messages = messages ++ [{"user", message}]
      answer = Chat.answer(messages, &IO.write/1)
      IO.puts("")
      note(summary(answer))
      chat(messages ++ [{"assistant", answer.text}])
    end
  end
end

{options, arguments} =
  try do
    OptionParser.parse!(System.argv(), strict: [device: :string, max_new_tokens: :integer])
  rescue
    error in OptionParser.ParseError -> Demo.stop(Exception.message(error))
  end

if arguments != [], do: Demo.stop("not an option: #{Enum.join(arguments, " ")}")
device = Demo.device!(options[:device])
max_new_tokens = options[:max_new_tokens] || 256
if max_new_tokens < 1, do: Demo.stop("--max-new-tokens must be at least 1")

Nx.global_default_backend({Emily.Backend, device: device})
path = Demo.smollm2!()
Terminal.note("SmolLM2-135M-Instruct on #{device}")
Chat.start!(path, device, max_new_tokens, &Terminal.progress/2)
Terminal.note("Say something; an empty line ends the conversation.")
Terminal.chat([])
