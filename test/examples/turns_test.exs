Code.require_file("../../examples/support/turns.ex", __DIR__)

defmodule Emily.Examples.TurnsTest do
  use ExUnit.Case, async: true

  @messages [{"system", "Be brief."}, {"user", "1 + 1?"}, {"assistant", "2"}, {"user", "+ 1?"}]

  # As the families' model cards write it.
  for {form, text} <- [
        chatml:
          "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n" <>
            "<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\n+ 1?<|im_end|>\n" <>
            "<|im_start|>assistant\n",
        llama3:
          "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>" <>
            "<|start_header_id|>user<|end_header_id|>\n\n1 + 1?<|eot_id|>" <>
            "<|start_header_id|>assistant<|end_header_id|>\n\n2<|eot_id|>" <>
            "<|start_header_id|>user<|end_header_id|>\n\n+ 1?<|eot_id|>" <>
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        gemma:
          "<start_of_turn>user\nBe brief.\n\n1 + 1?<end_of_turn>\n" <>
            "<start_of_turn>model\n2<end_of_turn>\n<start_of_turn>user\n+ 1?<end_of_turn>\n" <>
            "<start_of_turn>model\n",
        phi3:
          "<|system|>\nBe brief.<|end|>\n<|user|>\n1 + 1?<|end|>\n<|assistant|>\n2<|end|>\n" <>
            "<|user|>\n+ 1?<|end|>\n<|assistant|>\n",
        zephyr:
          "<|system|>\nBe brief.</s>\n<|user|>\n1 + 1?</s>\n<|assistant|>\n2</s>\n" <>
            "<|user|>\n+ 1?</s>\n<|assistant|>\n",
        mistral: "[INST] Be brief.\n\n1 + 1? [/INST] 2</s>[INST] + 1? [/INST]"
      ] do
    test "#{form}" do
      assert Turns.text(unquote(form), @messages) == unquote(text)
    end
  end

  test "a form is told by a template's tokens" do
    for {form, template} <- [
          chatml: "{{ '<|im_start|>' + role }}",
          llama3: "{{ '<|start_header_id|>' + role + '<|end_header_id|>' }}",
          gemma: "{{ '<start_of_turn>' + role }}",
          phi3: "{{ '<|user|>' + text + '<|end|>' + '<|assistant|>' }}",
          zephyr: "{{ '<|user|>' + text + eos_token + '<|assistant|>' }}",
          mistral: "{{ '[INST] ' + text + ' [/INST]' }}"
        ],
        do: assert(Turns.form(template) == {:ok, form})

    assert {:error, "the file has no chat template"} = Turns.form(nil)
    assert {:error, "the file's chat template is of none" <> _} = Turns.form("{{ text }}")
  end
end
