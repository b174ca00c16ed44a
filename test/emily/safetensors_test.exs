if Code.ensure_loaded?(Jason) do
  defmodule Emily.SafetensorsTest do
    use ExUnit.Case, async: true
    use ExUnitProperties

    doctest Emily.Safetensors

    @moduletag :tmp_dir

    defp file(folder, header, data) do
      path = Path.join(folder, "#{System.unique_integer([:positive])}.safetensors")
      header = if is_binary(header), do: header, else: Jason.encode!(header)
      File.write!(path, [<<byte_size(header)::64-little>>, header, data])
      path
    end

    defp entry(type, shape, first, last),
      do: %{"dtype" => type, "shape" => shape, "data_offsets" => [first, last]}

    defp refused(folder, header, data, message) do
      path = file(folder, header, data)
      error = assert_raise ArgumentError, message, fn -> Emily.Safetensors.read!(path) end
      assert error.message =~ path
    end

    # The reference is the package safetensors, on Nx.BinaryBackend.
    test "gives what the package safetensors gives", %{tmp_dir: folder} do
      Nx.default_backend(Nx.BinaryBackend)
      types = [:u8, :u16, :u32, :u64, :s8, :s16, :s32, :s64, :f16, :bf16, :f32, :f64]

      tensors =
        for type <- types, shape <- [{2, 3}, {4}, {}], into: %{} do
          {"#{type} #{inspect(shape)}", Nx.iota(shape, type: type)}
        end

      path = Path.join(folder, "types.safetensors")
      Safetensors.write!(path, tensors)
      lazy = Emily.Safetensors.read!(path, device: :cpu)
      assert Map.keys(lazy) == Map.keys(tensors)

      for {name, %{shape: shape, type: type} = tensor} <- tensors do
        assert %{shape: ^shape, type: ^type} = lazy[name]
        read = Nx.to_tensor(lazy[name])
        assert %Emily.Backend{} = read.data
        assert {read.shape, read.type, Nx.to_binary(read)} == {shape, type, Nx.to_binary(tensor)}
      end
    end

    test "reads booleans as u8 and leaves the metadata out", %{tmp_dir: folder} do
      header = %{"__metadata__" => %{"format" => "pt"}, "b" => entry("BOOL", [2], 0, 2)}
      lazy = folder |> file(header, <<1, 0>>) |> Emily.Safetensors.read!()
      assert Map.keys(lazy) == ["b"]
      assert Nx.to_list(Nx.to_tensor(lazy["b"])) == [1, 0]
    end

    test "refuses what is no file of tensors", %{tmp_dir: folder} do
      assert_raise ArgumentError, ~r/not a regular file/, fn ->
        Emily.Safetensors.read!(folder)
      end

      assert_raise File.Error, fn -> Emily.Safetensors.read!(Path.join(folder, "none")) end
      path = Path.join(folder, "short")

      for bytes <- ["", "1234567"] do
        File.write!(path, bytes)
        message = ~r/ends within the length/
        assert_raise ArgumentError, message, fn -> Emily.Safetensors.read!(path) end
      end

      File.write!(path, <<100_000_001::64-little>>)
      assert_raise ArgumentError, ~r/at most 100000000/, fn -> Emily.Safetensors.read!(path) end
      File.write!(path, <<50::64-little>>)

      assert_raise ArgumentError, ~r/ends within its header/, fn ->
        Emily.Safetensors.read!(path)
      end

      refused(folder, "{", <<>>, ~r/no JSON/)
      refused(folder, <<"{\"", 0xFF, "\":1}">>, <<>>, ~r/no JSON/)
      refused(folder, "[]", <<>>, ~r/no object of tensors/)
      refused(folder, String.duplicate("[", 1_000_000), <<>>, ~r/no object of tensors/)

      refused(
        folder,
        ~s({"a":#{String.duplicate("1", 1_000_000)}}),
        <<>>,
        ~r/no object of tensors/
      )

      twice = ~s({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}})
      refused(folder, twice, <<0>>, ~r/"a" stands twice/)
    end

    test "refuses what is no tensor", %{tmp_dir: folder} do
      for value <- [1, %{}, %{"dtype" => "U8"}, %{entry("U8", [1], 0, 1) | "data_offsets" => [0]}] do
        refused(folder, %{"a" => value}, <<0>>, ~r/"a" has no dtype, shape and data_offsets/)
      end

      refused(folder, %{"a" => entry("U8", [1.0], 0, 1)}, <<0>>, ~r/has no dtype/)
      refused(folder, %{"a" => entry(1, [1], 0, 1)}, <<0>>, ~r/has no dtype/)
      refused(folder, %{"a" => entry("U8", [-1, -1], 0, 1)}, <<0>>, ~r/the shape/)
      refused(folder, %{"a" => entry("U8", [2], 0, 2)}, <<0>>, ~r/beyond the file's end/)
      refused(folder, %{"a" => entry("U8", [1], -1, 0)}, <<0>>, ~r/beyond the file's end/)

      refused(
        folder,
        %{"a" => entry("U8", [2], 0, 1)},
        <<0>>,
        ~r/1 bytes, not those of its shape/
      )

      most = 0x7FFFFFFF

      refused(
        folder,
        %{"a" => entry("U8", [most, most, most], 0, 1)},
        <<0>>,
        ~r/not those of its/
      )

      two = %{"a" => entry("U8", [2], 0, 2), "b" => entry("U8", [2], 1, 3)}
      refused(folder, two, <<0, 0, 0>>, ~r/"a" and "b" overlap/)
    end

    # As the format of these numbers says: a sign, an exponent with a bias, a fraction; subnormal where the
    # exponent is zero.
    defp float8(byte, exponent_bits, bias) do
      fraction_bits = 7 - exponent_bits
      <<sign::1, exponent::size(^exponent_bits), fraction::size(^fraction_bits)>> = <<byte>>
      fraction = fraction / 2 ** fraction_bits
      least = 2.0 ** (1 - bias)

      magnitude =
        if exponent == 0, do: fraction * least, else: (1 + fraction) * least * 2 ** (exponent - 1)

      if sign == 1, do: -magnitude, else: magnitude
    end

    test "reads every finite number of FP8", %{tmp_dir: folder} do
      Process.put(Emily.Fallback, :silent)

      for {name, type, exponent_bits, bias, finite} <- [
            {"F8_E4M3", {:f8_e4m3fn, 8}, 4, 7, Enum.to_list(0..126)},
            {"F8_E5M2", {:f, 8}, 5, 15, Enum.to_list(0..123)}
          ] do
        bytes = finite ++ Enum.map(finite, &(&1 + 128))
        count = length(bytes)
        header = %{"a" => entry(name, [2, div(count, 2)], 0, count)}
        %{"a" => lazy} = folder |> file(header, bytes) |> Emily.Safetensors.read!()
        tensor = Nx.to_tensor(lazy)
        assert %Emily.Backend{} = tensor.data
        assert {tensor.type, tensor.shape} == {type, {2, div(count, 2)}}
        assert Nx.to_binary(tensor) == IO.iodata_to_binary(bytes)
        numbers = tensor |> Nx.as_type(:f32) |> Nx.to_flat_list()

        # Nx.BinaryBackend takes subnormal numbers of E5M2 for others.
        for {byte, number} <- Enum.zip(bytes, numbers),
            expected = float8(byte, exponent_bits, bias),
            type == {:f8_e4m3fn, 8} or expected == 0 or abs(expected) >= 2.0 ** (1 - bias),
            do: assert({byte, number} == {byte, expected})
      end
    end

    test "what cannot be read raises by its name, and the rest is read", %{tmp_dir: folder} do
      good = %{"good" => entry("F32", [2], 0, 8), "last" => entry("U8", [1], 8, 9)}

      for {dtype, shape, bytes, message} <- [
            {"F32", [0], 0, ~r/has the shape \[0\], and Nx has no empty tensors/},
            {"BF16", [3, 0, 2], 0, ~r/has the shape \[3, 0, 2\]/},
            {"F8_E8M0", [4], 4, ~r/is of type "F8_E8M0"; this reads BF16, BOOL/},
            {"F4", [4], 2, ~r/is of type "F4"/},
            {"F6_E2M3", [2, 2], 3, ~r/is of type "F6_E2M3"/},
            {"F8_E4M3FNUZ", [1], 1, ~r/is of type "F8_E4M3FNUZ"/},
            {"C128", [1], 16, ~r/is of type "C128"/},
            {"a type of tomorrow", [7], 3, ~r/is of type "a type of tomorrow"/},
            {"U8", List.duplicate(1, 33), 1, ~r/more than 32 dimensions/},
            {"U8", [0, 0x80000000], 0, ~r/no empty tensors/}
          ],
          # Before the good ones, between them, behind them.
          start <- [0, 8, 9] do
        moved =
          for {name, %{"data_offsets" => [first, last]} = entry} <- good, into: %{} do
            by = if first >= start, do: bytes, else: 0
            {name, %{entry | "data_offsets" => [first + by, last + by]}}
          end

        data = <<1.5::float-32-little, -2.0::float-32-little, 7>>
        <<before::binary-size(^start), rest::binary>> = data
        header = Map.put(moved, "bad one", entry(dtype, shape, start, start + bytes))
        path = file(folder, header, [before, :binary.copy(<<1>>, bytes), rest])

        lazy = Emily.Safetensors.read!(path)
        assert Map.keys(lazy) == ["bad one", "good", "last"]
        assert Nx.to_list(Nx.to_tensor(lazy["good"])) == [1.5, -2.0]
        assert Nx.to_list(Nx.to_tensor(lazy["last"])) == [7]
        assert lazy["bad one"].shape == List.to_tuple(shape)
        error = assert_raise ArgumentError, message, fn -> Nx.to_tensor(lazy["bad one"]) end
        assert error.message =~ ~s(Emily.Safetensors: #{path}: the tensor "bad one" )
      end
    end

    test "what cannot be read and is broken is refused with the file", %{tmp_dir: folder} do
      refused(folder, %{"a" => entry("F8_E4M3", [2], 0, 1)}, <<0>>, ~r/1 bytes, not those of/)
      refused(folder, %{"a" => entry("F4", [3], 0, 2)}, <<0, 0>>, ~r/2 bytes, not those of/)
      refused(folder, %{"a" => entry("U8", [0], 0, 1)}, <<0>>, ~r/1 bytes, not those of/)
      refused(folder, %{"a" => entry("NEW", [1], 0, 2)}, <<0>>, ~r/beyond the file's end/)
      refused(folder, %{"a" => entry("NEW", [1], 1, 0)}, <<0>>, ~r/-1 bytes, not those of/)
      two = %{"a" => entry("NEW", [2], 0, 2), "b" => entry("U8", [2], 1, 3)}
      refused(folder, two, <<0, 0, 0>>, ~r/"a" and "b" overlap/)
    end

    test "raises where the file is cut off after it was opened", %{tmp_dir: folder} do
      path = file(folder, %{"a" => entry("U8", [2], 0, 2)}, <<1, 2>>)
      %{"a" => lazy} = Emily.Safetensors.read!(path)
      File.write!(path, "")
      assert_raise ArgumentError, ~r/beyond its 0 bytes/, fn -> Nx.to_tensor(lazy) end
    end

    property "a damaged file is refused or read", %{tmp_dir: folder} do
      header = %{"a" => entry("F32", [2, 2], 0, 16), "b" => entry("I64", [1], 16, 24)}
      bytes = folder |> file(header, <<0::192>>) |> File.read!()
      path = Path.join(folder, "damaged")
      place = integer(0..(byte_size(bytes) - 1))

      check all(
              changes <- list_of({place, integer(0..255)}, max_length: 3),
              cut <- one_of([constant(byte_size(bytes)), place]),
              max_runs: 500
            ) do
        damaged =
          for {at, byte} <- changes, reduce: bytes do
            bytes ->
              <<head::binary-size(at), _, tail::binary>> = bytes
              <<head::binary, byte, tail::binary>>
          end

        File.write!(path, binary_part(damaged, 0, cut))

        try do
          for {_, lazy} <- Emily.Safetensors.read!(path), do: Nx.to_tensor(lazy)
        rescue
          error in ArgumentError -> assert error.message =~ path
        end
      end
    end

    if Code.ensure_loaded?(Bumblebee) do
      Code.require_file("../../examples/support/demo.ex", __DIR__)

      describe "load_model" do
        test "gives the parameters of Bumblebee.load_model" do
          dir = Demo.model_dir!()
          {:ok, expected} = Bumblebee.load_model({:local, dir}, backend: Nx.BinaryBackend)
          {:ok, loaded} = Emily.Safetensors.load_model(dir)
          assert loaded.spec == expected.spec
          assert Map.keys(loaded.params.data) == Map.keys(expected.params.data)

          for {layer, params} <- expected.params.data, {name, tensor} <- params do
            actual = loaded.params.data[layer][name]
            assert %Emily.Backend{} = actual.data
            assert {actual.shape, actual.type} == {tensor.shape, tensor.type}
            assert Nx.to_binary(actual) == Nx.to_binary(tensor)
          end

          {:ok, half} = Emily.Safetensors.load_model(dir, type: :f16)
          %{"kernel" => kernel} = half.params.data["embedder.token_embedding"]
          assert kernel.type == {:f, 16}
        end

        test "shares the memory of tied embeddings", %{tmp_dir: folder} do
          sizes = %{vocab_size: 3, hidden_size: 4, intermediate_size: 2, num_hidden_layers: 1}
          heads = %{num_attention_heads: 1, num_key_value_heads: 1, tie_word_embeddings: true}
          config = Map.merge(sizes, heads)
          config = Map.put(config, :architectures, ["LlamaForCausalLM"])
          File.write!(Path.join(folder, "config.json"), Jason.encode!(config))

          shapes =
            for {name, shape} <- [
                  {"embed_tokens", {3, 4}},
                  {"norm", {4}},
                  {"layers.0.input_layernorm", {4}},
                  {"layers.0.post_attention_layernorm", {4}},
                  {"layers.0.self_attn.q_proj", {4, 4}},
                  {"layers.0.self_attn.k_proj", {4, 4}},
                  {"layers.0.self_attn.v_proj", {4, 4}},
                  {"layers.0.self_attn.o_proj", {4, 4}},
                  {"layers.0.mlp.gate_proj", {2, 4}},
                  {"layers.0.mlp.up_proj", {2, 4}},
                  {"layers.0.mlp.down_proj", {4, 2}}
                ],
                into: %{},
                do: {"model.#{name}.weight", Nx.iota(shape, type: :f32)}

          Safetensors.write!(Path.join(folder, "model.safetensors"), shapes)
          {:ok, %{params: %{data: data}}} = Emily.Safetensors.load_model(folder)
          embedding = data["embedder.token_embedding"]["kernel"]
          assert Nx.to_flat_list(embedding) == Enum.map(0..11, &(&1 + 0.0))
          assert embedding.data.ref == data["language_modeling_head.output"]["kernel"].data.ref
        end

        test "reads a model beside what it does not ask for, and raises where it does", context do
          folder = context.tmp_dir
          dir = Demo.model_dir!()
          File.cp!(Path.join(dir, "config.json"), Path.join(folder, "config.json"))
          {:ok, expected} = Emily.Safetensors.load_model(dir)
          bytes = File.read!(Path.join(dir, "model.safetensors"))
          <<length::64-little, header::binary-size(length), data::binary>> = bytes
          header = Jason.decode!(header)
          path = Path.join(folder, "model.safetensors")

          write = fn header ->
            json = Jason.encode!(header)
            File.write!(path, [<<byte_size(json)::64-little>>, json, data, 0])
          end

          size = byte_size(data)

          beside = %{
            "x.empty" => entry("F32", [0], size, size),
            "x.f4" => entry("F4", [2], size, size + 1)
          }

          write.(Map.merge(header, beside))
          {:ok, loaded} = Emily.Safetensors.load_model(folder)
          name = "embedder.token_embedding"

          [a, b] = for model <- [loaded, expected], do: model.params.data[name]["kernel"]
          assert Nx.to_binary(a) == Nx.to_binary(b)

          {weight, _} = Enum.find(header, fn {name, _} -> name =~ "word_embeddings.weight" end)
          write.(put_in(header[weight]["dtype"], "TOMORROW"))
          message = ~r/the tensor "#{weight}" is of type "TOMORROW"/
          assert_raise ArgumentError, message, fn -> Emily.Safetensors.load_model(folder) end
        end

        test "reads the files of an index", %{tmp_dir: folder} do
          dir = Demo.model_dir!()
          {:ok, expected} = Emily.Safetensors.load_model(dir)
          File.cp!(Path.join(dir, "config.json"), Path.join(folder, "config.json"))
          File.cp!(Path.join(dir, "model.safetensors"), Path.join(folder, "model-1.safetensors"))
          index = Path.join(folder, "model.safetensors.index.json")
          File.write!(index, ~s({"weight_map":{"a":"model-1.safetensors"}}))
          {:ok, loaded} = Emily.Safetensors.load_model(folder)

          [a, b] =
            for model <- [loaded, expected], do: model.params.data["pooler.output"]["kernel"]

          assert Nx.to_binary(a) == Nx.to_binary(b)

          for {map, message} <- [
                {~s({"weight_map":{"a":"../x.safetensors"}}), ~r/no file's name/},
                {~s({"weights":{}}), ~r/no weight_map/}
              ] do
            File.write!(index, map)
            assert_raise ArgumentError, message, fn -> Emily.Safetensors.load_model(folder) end
          end
        end
      end
    end
  end
end
