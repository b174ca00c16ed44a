defmodule Attack.Files.Seeds do
  @moduledoc false
  # Files that are whole, of which the attack makes others.

  import Emily.GGUFFile

  @doc "The bytes of a GGUF file with all kinds of metadata and of tensors, and a tokenizer."
  def gguf do
    metadata = [
      {"general.architecture", :string, "llama"},
      {"general.alignment", :u32, 32},
      {"a.u8", :u8, 200},
      {"a.s64", :s64, -5},
      {"a.f32", :f32, 0.5},
      {"a.f64", :f64, 2.5},
      {"a.bool", :bool, true},
      {"a.list", {:array, :s32}, [1, 2, 3]},
      {"a.lists", {:array, {:array, :u8}}, [[1, 2], [3]]},
      {"tokenizer.ggml.tokens", {:array, :string}, ["a", "b", "ab", "é", "</s>"]},
      {"tokenizer.chat_template", :string, "{{ messages }}"}
    ]

    tensors = [
      {"f32", 0, [4, 3], :rand.bytes(48)},
      {"f16", 1, [8], :rand.bytes(16)},
      {"bf16", 30, [2, 2, 2], :rand.bytes(16)},
      {"s8", 24, [5], :rand.bytes(5)},
      {"s64", 27, [1, 2], :rand.bytes(16)},
      {"q4_0", 2, [32, 2], :rand.bytes(36)},
      {"q8_0", 8, [32, 1], :rand.bytes(34)},
      {"q4_k", 12, [256, 1], :rand.bytes(144)},
      {"iq4_xs", 23, [256, 1], :rand.bytes(136)},
      {"mxfp4", 39, [32, 2], :rand.bytes(34)}
    ]

    bytes(metadata, tensors)
  end

  @doc "The bytes of a safetensors file."
  def safetensors do
    tensors = [
      {"f32", "F32", [2, 3], 24},
      {"f16", "F16", [4], 8},
      {"bf16", "BF16", [], 2},
      {"u8", "U8", [3], 3},
      {"bool", "BOOL", [2], 2},
      {"i64", "I64", [1, 2], 16},
      {"f8", "F8_E4M3", [4], 4},
      {"c64", "C64", [1], 8}
    ]

    {entries, length} =
      Enum.map_reduce(tensors, 0, fn {name, type, shape, bytes}, at ->
        {~s("#{name}":{"dtype":"#{type}","shape":#{Jason.encode!(shape)},"data_offsets":[#{at},#{at + bytes}]}),
         at + bytes}
      end)

    header = "{" <> Enum.join([~s("__metadata__":{"format":"pt"}) | entries], ",") <> "}"
    <<byte_size(header)::64-little>> <> header <> :rand.bytes(length)
  end

  @doc "An object as `config.json`, an index and the configuration of adapters have them."
  def json do
    Jason.encode!(%{
      "weight_map" => %{"a" => "model.safetensors", "b" => "model-2.safetensors"},
      "quantization" => %{"group_size" => 64, "bits" => 4, "layer.1" => %{"bits" => 8}},
      "peft_type" => "LORA",
      "r" => 8,
      "lora_dropout" => 0.1,
      "target_modules" => ["query", "é"],
      "eps" => 1.0e-5
    })
  end
end
