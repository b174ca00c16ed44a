defmodule Emily.ArgumentsTest do
  # What bin/attack found: terms that came out as another error than ArgumentError, and files that nobody answers for.
  use ExUnit.Case, async: true

  alias Emily.{GGUF, Native}
  alias Emily.Native.Program

  @moduletag :tmp_dir

  @no_options [1, :dims, %{}, [1], [{:a, 1} | :b], "a"]

  test "what are no options is refused by the function's name" do
    [x] = Native.run([{:full, [1, 1, 1, 2], 1, :f32}])

    for opts <- @no_options,
        {name, fun} <- [
          {"Emily.Native.rope/3", fn -> Native.rope(x, x, opts) end},
          {"Emily.Native.rope_with_freqs/4", fn -> Native.rope_with_freqs(x, x, x, opts) end},
          {"Emily.Native.attention/4", fn -> Native.attention(x, x, x, opts) end},
          {"Emily.Native.Program.compile/2", fn -> Program.compile({[], [], [x]}, opts) end},
          {"Emily.MixedPrecision.LossScaler.new/1",
           fn -> Emily.MixedPrecision.LossScaler.new(opts) end},
          {"Emily.Backend", fn -> Emily.Backend.init(opts) end}
        ] do
      assert_raise ArgumentError, ~r"^#{Regex.escape(name)} expects a keyword list", fun
    end
  end

  test "what is no program, no path and no list is refused" do
    assert_raise ArgumentError, ~r"Program.run/5 expects a program", fn ->
      Program.run([5], 0.5)
    end

    for path <- [1, [{} | :a], :a, [-1]] do
      assert_raise ArgumentError, ~r"from_file expects a path", fn ->
        Native.from_file(path, 0, [1], :u8)
      end

      assert_raise ArgumentError, ~r"read!/1 expects a path", fn -> GGUF.read!(path) end

      if Code.ensure_loaded?(Jason) do
        assert_raise ArgumentError, ~r"read!/2 expects a path", fn ->
          Emily.Safetensors.read!(path)
        end
      end
    end

    for list <- [[1 | 2], %{a: [1 | make_ref()]}, {[1 | 2]}] do
      refused = fn fun -> assert_raise ArgumentError, ~r"Emily.\w+/1 expects arrays", fun end

      if is_list(list),
        do: refused.(fn -> Emily.eval(list) end),
        else: assert(Emily.eval(list) == :ok)
    end
  end

  # It comes with Bumblebee.
  if Code.ensure_loaded?(Jason) do
    describe "JSON in files" do
      test "is an object, or refused", %{tmp_dir: folder} do
        path = Path.join(folder, "a.json")

        for text <-
              ["", "[]", "1", "{", ~s({"a":\xFF}), String.duplicate("[", 1_000_000)] ++
                [~s({"a":#{String.duplicate("9", 1000)}}), ~s({"a":#{String.duplicate("{", 99)}})] do
          File.write!(path, text)
          assert Emily.Safetensors.JSON.read!(path) == :error
        end

        File.write!(path, ~s({"a":[1,{"b":0.5}],"[[":"{\\"{"}))

        assert Emily.Safetensors.JSON.read!(path) ==
                 {:ok, %{"a" => [1, %{"b" => 0.5}], "[[" => "{\"{"}}

        assert_raise File.Error, fn ->
          Emily.Safetensors.JSON.read!(Path.join(folder, "nothing"))
        end
      end

      test "is not waited for where a pipe has its name", %{tmp_dir: folder} do
        path = Path.join(folder, "adapter_config.json")
        {_, 0} = System.cmd("mkfifo", [path])
        assert Emily.Safetensors.JSON.read!(path) == :error
        assert Emily.Safetensors.JSON.read!(folder) == :error
      end
    end
  end

  if Code.ensure_loaded?(Bumblebee) do
    test "an index that is no JSON is named", %{tmp_dir: folder} do
      File.write!(Path.join(folder, "model.safetensors.index.json"), "{")
      spec = Bumblebee.configure(Bumblebee.Text.Bert)

      assert_raise ArgumentError, ~r"index.json: there is no weight_map", fn ->
        Emily.Safetensors.load_model(folder, spec: spec)
      end

      assert_raise ArgumentError, ~r"load_model/2 expects a path", fn ->
        Emily.Safetensors.load_model(1)
      end

      assert_raise ArgumentError, ~r"Emily.LoRA.load/3 expects a path", fn ->
        Emily.LoRA.load(%{}, 1)
      end
    end
  end
end
