defmodule Turns do
  @moduledoc """
  How the turns of a conversation are written for a model.

  Models come with templates in the language Jinja. Most are of one of a few forms, which are told by the tokens that
  they write:

    * `:chatml` - SmolLM, Qwen and many others
    * `:llama3` - Llama 3
    * `:gemma` - Gemma, which knows no system: what it would say stands before the first message
    * `:phi3` - Phi 3
    * `:zephyr` - Zephyr, TinyLlama
    * `:mistral` - Mistral, Llama 2, without a system as above
  """

  # The first whose tokens a template has.
  @marks [
    chatml: ["<|im_start|>"],
    llama3: ["<|start_header_id|>"],
    gemma: ["<start_of_turn>"],
    phi3: ["<|assistant|>", "<|end|>"],
    zephyr: ["<|assistant|>"],
    mistral: ["[INST]"]
  ]

  @forms Keyword.keys(@marks)

  # What SmolLM2's template says where a conversation has no system of its own.
  @smollm "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

  @doc "The names of the forms."
  def forms, do: @forms

  @doc """
  The form of a template, or `{:error, why}`.
  """
  def form(nil), do: {:error, "the file has no chat template"}

  def form(template) do
    found =
      Enum.find(@marks, fn {_form, marks} -> Enum.all?(marks, &String.contains?(template, &1)) end)

    case found do
      {form, _} -> {:ok, form}
      nil -> {:error, "the file's chat template is of none of the known forms"}
    end
  end

  @doc "What a template has the system say by itself, or `nil`."
  def system(template), do: if(template && String.contains?(template, @smollm), do: @smollm)

  @doc """
  The text that the model goes on from. `messages` are pairs of a role (`"system"`, `"user"` or `"assistant"`) and what
  was said.

      Turns.text(:chatml, [{"user", "Hello"}])
      # "<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n"
  """
  def text(form, messages) do
    messages = if form in [:gemma, :mistral], do: without_system(messages), else: messages
    turns = for {role, text} <- messages, do: turn(form, role, text)
    IO.iodata_to_binary([turns, answer(form)])
  end

  defp turn(:chatml, role, text), do: "<|im_start|>#{role}\n#{text}<|im_end|>\n"

  defp turn(:llama3, role, text),
    do: "<|start_header_id|>#{role}<|end_header_id|>\n\n#{text}<|eot_id|>"

  defp turn(:gemma, "assistant", text), do: turn(:gemma, "model", text)
  defp turn(:gemma, role, text), do: "<start_of_turn>#{role}\n#{text}<end_of_turn>\n"
  defp turn(:phi3, role, text), do: "<|#{role}|>\n#{text}<|end|>\n"
  defp turn(:zephyr, role, text), do: "<|#{role}|>\n#{text}</s>\n"
  defp turn(:mistral, "user", text), do: "[INST] #{text} [/INST]"
  defp turn(:mistral, "assistant", text), do: " #{text}</s>"

  # Where the answer begins.
  defp answer(:chatml), do: "<|im_start|>assistant\n"
  defp answer(:llama3), do: "<|start_header_id|>assistant<|end_header_id|>\n\n"
  defp answer(:gemma), do: "<start_of_turn>model\n"
  defp answer(form) when form in [:phi3, :zephyr], do: "<|assistant|>\n"
  defp answer(:mistral), do: ""

  defp without_system([{"system", system}, {"user", text} | rest]),
    do: [{"user", "#{system}\n\n#{text}"} | rest]

  defp without_system(messages), do: messages
end
