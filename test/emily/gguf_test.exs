defmodule Emily.GGUFTest do
  use ExUnit.Case, async: true
  use ExUnitProperties

  import Emily.GGUFFile

  alias Emily.GGUF

  doctest Emily.GGUF

  @moduletag :tmp_dir

  defp read(bytes, folder), do: bytes |> write(folder) |> GGUF.read!()

  defp refused(bytes, folder, message) do
    path = write(bytes, folder)
    error = assert_raise ArgumentError, message, fn -> GGUF.read!(path) end
    assert error.message =~ path
  end

  # Numbers of every kind of block, as the format defines them: one scale in f16, and 32 quants.
  @scales [0.5, -0.125, 2.0, 0.0]
  defp quants(range), do: Stream.cycle(range) |> Enum.take(32 * length(@scales))
  defp blocks(quants), do: Enum.zip(@scales, Enum.chunk_every(quants, 32))

  defp q8_0(quants) do
    for {scale, quants} <- blocks(quants), into: <<>> do
      <<scale::float-16-little, for(q <- quants, into: <<>>, do: <<q::8-signed>>)::binary>>
    end
  end

  defp q4(quants, between) do
    for {scale, quants} <- blocks(quants), into: <<>> do
      {low, high} = Enum.split(quants, 16)
      bytes = for {low, high} <- Enum.zip(low, high), into: <<>>, do: <<high::4, low::4>>
      <<scale::float-16-little, between::binary, bytes::binary>>
    end
  end

  defp numbers(quants, fun) do
    for {scale, quants} <- blocks(quants), q <- quants, do: fun.(scale, q)
  end

  describe "metadata" do
    test "of every type", %{tmp_dir: folder} do
      metadata = [
        {"u8", :u8, 255},
        {"s8", :s8, -128},
        {"u16", :u16, 65_535},
        {"s16", :s16, -32_768},
        {"u32", :u32, 4_294_967_295},
        {"s32", :s32, -2_147_483_648},
        {"u64", :u64, 18_446_744_073_709_551_615},
        {"s64", :s64, -9_223_372_036_854_775_808},
        {"f32", :f32, 1.5},
        {"f64", :f64, -1.0e300},
        {"bool", :bool, true},
        {"string", :string, "naïve 日本"},
        {"empty", :string, ""},
        {"list", {:array, :s16}, [1, -2, 3]},
        {"none", {:array, :string}, []},
        {"strings", {:array, :string}, ["a", "", "ü"]},
        {"lists", {:array, {:array, :u8}}, [[1, 2], [], [3]]},
        {"infinity", :f32, <<0, 0, 0x80, 0x7F>>},
        {"neg_infinity", :f64, <<0, 0, 0, 0, 0, 0, 0xF0, 0xFF>>},
        {"nan", {:array, :f32}, [<<1, 0, 0x80, 0x7F>>, <<0, 0, 0xC0, 0xFF>>]}
      ]

      for version <- 2..3 do
        gguf = metadata |> bytes([], version: version) |> read(folder)
        assert gguf.version == version
        assert gguf.tensors == %{}

        specials = %{
          "infinity" => :infinity,
          "neg_infinity" => :neg_infinity,
          "nan" => [:nan, :nan]
        }

        assert gguf.metadata == Map.merge(Map.new(metadata, fn {k, _, v} -> {k, v} end), specials)

        types = Map.new(metadata, fn {key, type, _} -> {key, type} end)
        assert gguf.types == %{types | "lists" => {:array, :array}}
      end
    end

    test "longer than the first part that is read", %{tmp_dir: folder} do
      long = String.duplicate("x", 12_000_000)
      many = List.duplicate(String.duplicate("y", 1_000_000), 12)
      tensors = [{"w", 0, [1], <<7.0::float-32-little>>}]
      metadata = [{"a", :string, long}, {"b", {:array, :string}, many}, {"c", :string, long}]
      gguf = metadata |> bytes(tensors) |> read(folder)
      assert gguf.metadata == %{"a" => long, "b" => many, "c" => long}
      assert Nx.to_list(GGUF.tensor(gguf, "w")) == [7.0]
    end

    test "that moves the tensors by its alignment", %{tmp_dir: folder} do
      tensors = [{"w1234567", 0, [1], <<7.0::float-32-little>>}]

      for {alignment, offset} <- [{8, 104}, {32, 128}] do
        # A header of 97 bytes.
        gguf = [{"general.alignment", :u32, alignment}] |> bytes(tensors) |> read(folder)
        assert gguf.tensors["w1234567"].offset == offset
      end
    end
  end

  describe "a tensor" do
    test "has its sizes reversed and its numbers in place", %{tmp_dir: folder} do
      data = for i <- 0..5, into: <<>>, do: <<i::float-32-little>>

      gguf =
        []
        |> bytes([{"a", 0, [3, 2], data}, {"b", 0, [], <<9.0::float-32-little>>}])
        |> read(folder)

      assert gguf.tensors["a"].shape == {2, 3}
      a = GGUF.tensor(gguf, "a")
      assert %Emily.Backend{} = a.data
      assert Nx.to_list(a) == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
      assert Nx.to_number(GGUF.tensor(gguf, "b")) == 9.0
    end

    test "of plain types", %{tmp_dir: folder} do
      tensors = [
        {"f16", 1, [2], <<1.5::float-16-little, -0.25::float-16-little>>},
        {"bf16", 30, [2], <<0x3FC0::16-little, 0xBE80::16-little>>},
        {"i8", 24, [2], <<1, 255>>},
        {"i16", 25, [2], <<1::16-little, -2::16-little>>},
        {"i32", 26, [2], <<1::32-little, -2::32-little>>},
        {"i64", 27, [2], <<1::64-little, -2::64-little>>}
      ]

      gguf = [] |> bytes(tensors) |> read(folder)

      for {name, type, values} <- [
            {"f16", {:f, 16}, [1.5, -0.25]},
            {"bf16", {:bf, 16}, [1.5, -0.25]},
            {"i8", {:s, 8}, [1, -1]},
            {"i16", {:s, 16}, [1, -2]},
            {"i32", {:s, 32}, [1, -2]},
            {"i64", {:s, 64}, [1, -2]}
          ] do
        tensor = GGUF.tensor(gguf, name)
        assert {name, tensor.type, Nx.to_list(tensor)} == {name, type, values}
      end

      assert %{type: {:f, 32}} = tensor = GGUF.tensor(gguf, "bf16", type: :f32)
      assert Nx.to_list(tensor) == [1.5, -0.25]
      assert_raise ArgumentError, ~r/integers/, fn -> GGUF.tensor(gguf, "i8", type: :f32) end
    end

    test "of quantized types", %{tmp_dir: folder} do
      tensors = [
        {"q8_0", 8, [64, 2], q8_0(quants(-128..127))},
        {"q4_0", 2, [64, 2], q4(quants(0..15), <<>>)},
        {"q4_1", 3, [64, 2], q4(quants(0..15), <<-0.75::float-16-little>>)}
      ]

      expected = %{
        "q8_0" => numbers(quants(-128..127), &(&1 * &2)),
        "q4_0" => numbers(quants(0..15), &(&1 * (&2 - 8))),
        "q4_1" => numbers(quants(0..15), &(&1 * &2 - 0.75))
      }

      gguf = [] |> bytes(tensors) |> read(folder)

      for {name, numbers} <- expected do
        tensor = GGUF.tensor(gguf, name)
        assert {tensor.shape, tensor.type} == {{2, 64}, {:f, 32}}
        assert Enum.map(Nx.to_flat_list(tensor), &(&1 + 0.0)) == Enum.map(numbers, &(&1 + 0.0))

        # All of these numbers fit.
        for type <- [:f16, :bf16] do
          tensor = GGUF.tensor(gguf, name, type: type)
          assert tensor.type == Nx.Type.normalize!(type)
          assert Enum.map(Nx.to_flat_list(tensor), &(&1 + 0.0)) == Enum.map(numbers, &(&1 + 0.0))
        end

        # The affine form means the same, unpacked by hand.
        for type <- [:f32, :f16] do
          packed = GGUF.packed(gguf, name, mode: "affine", type: type)
          %{bits: bits, group_size: 32, scales: scales, biases: biases} = packed
          assert {scales.shape, biases.shape} == {{2, 2}, {2, 2}}

          assert {scales.type, biases.type} ==
                   {Nx.Type.normalize!(type), Nx.Type.normalize!(type)}

          assert {packed.value.shape, packed.value.type} == {{2, 2 * bits}, {:u, 32}}

          words = packed.value |> Nx.to_flat_list() |> Enum.chunk_every(bits)

          unpacked =
            for {words, scale, bias} <-
                  Enum.zip([words, Nx.to_flat_list(scales), Nx.to_flat_list(biases)]),
                word <- words,
                at <- 0..(div(32, bits) - 1) do
              q = word |> Bitwise.bsr(at * bits) |> Bitwise.band(Bitwise.bsl(1, bits) - 1)
              scale * q + bias
            end

          assert Enum.map(unpacked, &(&1 + 0.0)) == Enum.map(numbers, &(&1 + 0.0))
        end
      end
    end

    test "is refused where it cannot be read", %{tmp_dir: folder} do
      huge = <<60_000.0::float-16-little, 0::256>>
      tensors = [{"f", 0, [1], <<0::32>>}, {"k", 15, [256], <<0::2336>>}, {"q", 8, [32], huge}]
      gguf = [] |> bytes(tensors) |> read(folder)
      assert gguf.tensors["k"].type == :q8_k

      assert_raise ArgumentError, ~r/"k" is of type q8_k; this reads/, fn ->
        GGUF.tensor(gguf, "k")
      end

      assert_raise ArgumentError, ~r/no tensor "x"/, fn -> GGUF.tensor(gguf, "x") end
      assert_raise ArgumentError, ~r/"f" is of type f32/, fn -> GGUF.packed(gguf, "f") end
      assert_raise ArgumentError, ~r/:type must be/, fn -> GGUF.tensor(gguf, "f", type: :u8) end
      assert_raise ArgumentError, ~r/unknown keys/, fn -> GGUF.tensor(gguf, "f", typ: :f16) end

      assert_raise ArgumentError, ~r/take type: :f32/, fn ->
        GGUF.packed(gguf, "q", mode: "affine", type: :f16)
      end

      assert_raise ArgumentError, ~r/blocks have no :type/, fn ->
        GGUF.packed(gguf, "q", type: :f16)
      end

      assert_raise ArgumentError, ~r/:mode must be "affine", got: "mxfp4"/, fn ->
        GGUF.packed(gguf, "q", mode: "mxfp4")
      end

      affine = GGUF.packed(gguf, "q", mode: "affine")
      assert Nx.to_list(affine.biases) == [60_000.0 * -128]
      # f16 holds 59 968 and 60 000.
      assert Nx.to_list(affine.scales) == [60_000.0]

      File.write!(gguf.path, "")
      assert_raise ArgumentError, ~r/reach beyond its 0 bytes/, fn -> GGUF.tensor(gguf, "f") end
      File.rm!(gguf.path)
      assert_raise ArgumentError, ~r/#{gguf.path}/, fn -> GGUF.tensor(gguf, "f") end
    end
  end

  describe "refused is" do
    test "what is no file", %{tmp_dir: folder} do
      assert_raise ArgumentError, ~r/not a regular file/, fn -> GGUF.read!(folder) end
      assert_raise File.Error, fn -> GGUF.read!(Path.join(folder, "none")) end
    end

    test "another format or version", %{tmp_dir: folder} do
      refused("", folder, ~r/ends within the version/)
      refused("GGML" <> <<0::512>>, folder, ~r/no GGUF file/)
      refused(bytes([], [], version: 1), folder, ~r/its version is 1/)
      refused(bytes([], [], version: 4), folder, ~r/its version is 4/)
      refused(<<"GGUF", 3::32-big, 0::128>>, folder, ~r/big-endian/)
    end

    test "a count that the file does not hold", %{tmp_dir: folder} do
      most = 0xFFFFFFFFFFFFFFFF
      refused(bytes([], [], pairs: most), folder, ~r/the file ends/)
      refused(bytes([], [], tensors: most), folder, ~r/the file ends within/)

      for type <- [0, 8, 9, 12] do
        list = [<<type::32-little>>, <<most::64-little>>]
        refused(bytes([{"a", {:raw, 9}, list}], []), folder, ~r/the file ends|unknown type/)
      end

      refused(bytes([{"a", {:raw, 8}, <<most::64-little>>}], []), folder, ~r/the file ends/)
    end

    test "a header of more than 64 MiB", %{tmp_dir: folder} do
      path = write(bytes([{"a", {:raw, 8}, <<100_000_000::64-little>>}], []), folder)
      # The file is as long as that, without taking room on the disk.
      File.open!(path, [:read, :write, :raw], &:file.pwrite(&1, 200_000_000, <<0>>))
      assert_raise ArgumentError, ~r/more than 67108864 bytes/, fn -> GGUF.read!(path) end
    end

    test "what stands twice", %{tmp_dir: folder} do
      refused(bytes([{"a", :u8, 1}, {"a", :u8, 1}], []), folder, ~r/the key "a" stands twice/)
      tensor = {"a", 0, [1], <<0::32>>}
      refused(bytes([], [tensor, tensor]), folder, ~r/the tensor "a" stands twice/)
    end

    test "metadata that mean nothing", %{tmp_dir: folder} do
      refused(bytes([{"a", :string, <<0xFF>>}], []), folder, ~r/"a" is not UTF-8/)

      refused(
        bytes([{"a", {:array, :string}, ["b", <<0xFF>>]}], []),
        folder,
        ~r/"a" is not UTF-8/
      )

      refused(bytes([{<<0xFF>>, :u8, 0}], []), folder, ~r/a key is not UTF-8/)
      refused(bytes([{"a", {:raw, 13}, <<>>}], []), folder, ~r/unknown type 13/)
      refused(bytes([{"a", {:raw, 7}, <<2>>}], []), folder, ~r/2 for a boolean/)
      deep = :binary.copy(<<9::32-little, 1::64-little>>, 100_000)
      refused(bytes([{"a", {:raw, 9}, deep}], []), folder, ~r/nested deeper than 8/)
      refused(bytes([{"general.alignment", :u32, 0}], []), folder, ~r/alignment is 0/)
      refused(bytes([{"general.alignment", :u32, 12}], []), folder, ~r/alignment is 12/)
      refused(bytes([{"general.alignment", :string, "32"}], []), folder, ~r/alignment is "32"/)
    end

    test "a tensor of no possible shape, type or place", %{tmp_dir: folder} do
      one = <<0::32>>
      refused(bytes([], [{"a", 0, [0], one}]), folder, ~r/a dimension of 0/)
      refused(bytes([], [{"a", 0, [1, 1, 1, 1, 1], one}]), folder, ~r/5 dimensions, at most 4/)
      refused(bytes([], [{"a", 0, [0x80000000], one}]), folder, ~r/a dimension of 2147483648/)
      refused(bytes([], [{"a", 99, [1], one}]), folder, ~r/the unknown type 99/)
      refused(bytes([], [{"a", 8, [16], one}]), folder, ~r/rows of 16, not of whole blocks/)
      refused(bytes([], [{"a", 8, [], one}]), folder, ~r/rows of 1, not of whole blocks/)
      most = 0x7FFFFFFF

      refused(
        bytes([], [{"a", 0, [most, most, most, most], one}]),
        folder,
        ~r/beyond the file's end/
      )

      refused(bytes([], [{"a", 0, [1], one, 4}]), folder, ~r/not aligned to 32/)
      refused(bytes([], [{"a", 0, [1], one, 64}]), folder, ~r/beyond the file's end/)

      refused(
        bytes([], [{"a", 0, [1], one, 0xFFFFFFFFFFFFFFE0}]),
        folder,
        ~r/beyond the file's end/
      )

      two = [{"a", 0, [16], <<0::512>>}, {"b", 0, [1], one, 32}]
      refused(bytes([], two), folder, ~r/"a" and "b" overlap/)
    end
  end

  describe "a damaged file" do
    setup %{tmp_dir: folder} do
      metadata = [
        {"general.alignment", :u32, 32},
        {"name", :string, "naïve"},
        {"list", {:array, :string}, ["a", "b"]},
        {"lists", {:array, {:array, :f32}}, [[1.0], [2.0, 3.0]]},
        {"flag", :bool, false}
      ]

      tensors = [
        {"a", 0, [3, 2], <<0::192>>},
        {"b", 8, [64, 2], q8_0(quants(-128..127))},
        {"d", 12, [256], :binary.copy(<<0x3C>>, 144)},
        {"c", 3, [32], binary_part(q4(quants(0..15), <<0::16>>), 0, 20)}
      ]

      %{bytes: bytes(metadata, tensors), path: Path.join(folder, "damaged.gguf")}
    end

    # Either it is refused, or everything that it says can be read.
    defp survives(path, bytes) do
      File.write!(path, bytes)

      try do
        gguf = GGUF.read!(path)

        for {name, tensor} <- gguf.tensors, tensor.type in GGUF.Blocks.readable() do
          assert GGUF.tensor(gguf, name).shape == tensor.shape
        end
      rescue
        error in ArgumentError -> assert error.message =~ path
      end
    end

    test "is refused wherever it is cut", %{bytes: bytes, path: path} do
      # The last tensor is padded: only that may be missing.
      for length <- 0..(byte_size(bytes) - 32) do
        File.write!(path, binary_part(bytes, 0, length))
        assert_raise ArgumentError, fn -> GGUF.read!(path) end
      end
    end

    property "is refused or read, whatever bytes are changed", %{bytes: bytes, path: path} do
      change =
        {integer(0..(byte_size(bytes) - 1)), one_of([integer(0..255), member_of([0, 255])])}

      check all(changes <- list_of(change, min_length: 1, max_length: 4), max_runs: 400) do
        survives(path, change(bytes, changes))
      end
    end

    property "is refused or read, with any number in the place of eight bytes", context do
      %{bytes: bytes, path: path} = context
      numbers = member_of([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF])

      check all(at <- integer(0..(byte_size(bytes) - 8)), number <- numbers, max_runs: 400) do
        <<head::binary-size(at), _::64, tail::binary>> = bytes
        survives(path, <<head::binary, number::64-little, tail::binary>>)
      end
    end

    defp change(bytes, changes) do
      for {at, byte} <- changes, reduce: bytes do
        bytes ->
          <<head::binary-size(at), _, tail::binary>> = bytes
          <<head::binary, byte, tail::binary>>
      end
    end
  end
end
