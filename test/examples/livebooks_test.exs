# Every Livebook runs without Livebook, cell by cell, with the small models of the tests.
livebooks? = Enum.all?([Kino, VegaLite, Bumblebee], &Code.ensure_loaded?/1)

if livebooks? do
  Code.require_file("../../examples/support/demo.ex", __DIR__)
  for file <- ~w(page cells), do: Code.require_file("../../livebooks/#{file}.exs", __DIR__)
else
  IO.puts(:stderr, "SKIPPED: the Livebooks, since Kino, VegaLite or Bumblebee is not here")
end

defmodule Emily.LivebooksTest do
  # The default backend and the environment belong to the whole VM.
  use ExUnit.Case, async: false

  # Whole models run here: on a busy machine that takes long.
  @moduletag timeout: 1_800_000, capture_log: true
  unless livebooks?, do: @moduletag(skip: "Kino, VegaLite or Bumblebee is not here")

  # Called by their names, since they are not always here.
  @cells Cells
  @page Page

  @livebooks Path.wildcard("livebooks/*.livemd")

  setup_all do
    before = Map.new(~w(EMILY_MODEL EMILY_SMOLLM2 EMILY_DIGITS), &{&1, System.get_env(&1)})
    backend = Nx.default_backend()

    on_exit(fn ->
      for {name, value} <- before,
          do: if(value, do: System.put_env(name, value), else: System.delete_env(name))

      Nx.global_default_backend(backend)
    end)

    demo = Demo
    System.put_env("EMILY_MODEL", demo.model_dir!())
    System.put_env("EMILY_SMOLLM2", demo.smollm2!())
    digits = Path.join(Mix.Tasks.Emily.Model.folder("digits"), "mnist_5k.csv.gz")
    System.put_env("EMILY_DIGITS", before["EMILY_DIGITS"] || digits)
  end

  # The variables of a Livebook's cells, their values, and what was put out; with what `texts` say in its form.
  defp run(name, texts \\ []) do
    ExUnit.CaptureIO.with_io(fn ->
      # What the cells start ends with the process.
      Task.async(fn ->
        Process.put(Emily.Fallback, :silent)
        page = @page.open()
        {:ok, values} = Agent.start_link(fn -> [] end)

        show = fn value ->
          @page.show(page, value)
          Agent.update(values, &[value | &1])
        end

        variables = Map.new(@cells.run("livebooks/#{name}.livemd", show))
        if texts != [], do: @page.submit(page, texts)
        outputs = @page.outputs(page)
        values = values |> Agent.get(& &1) |> Enum.reverse()
        assert Enum.any?(outputs, &match?(%{type: type} when type in [:input, :control], &1))
        charts(values)
        {variables, outputs}
      end)
      |> Task.await(:infinity)
    end)
    |> elem(0)
  end

  # A Livebook has a chart, and its charts draw what is in their data.
  defp charts(values) do
    specs = for %{__struct__: VegaLite} = chart <- values, do: chart.spec
    assert specs != []

    for spec <- specs do
      [row | _] = rows = spec["data"]["values"]
      fields = fields(spec)
      assert fields != []
      for field <- fields, do: assert(is_map_key(row, field), "#{field} of #{inspect(row)}")
      assert length(rows) > 1
    end
  end

  defp fields(%{"field" => field} = map) when is_binary(field),
    do: [field | map |> Map.delete("field") |> fields()]

  defp fields(%{"values" => _}), do: []
  defp fields(map) when is_map(map), do: map |> Map.values() |> Enum.flat_map(&fields/1)
  defp fields(list) when is_list(list), do: Enum.flat_map(list, &fields/1)
  defp fields(_other), do: []

  defp texts(outputs), do: Enum.map_join(outputs, fn output -> to_string(output[:text]) end)

  test "each Livebook has a test" do
    tests = for {:test, name} <- tests(), do: name
    for path <- @livebooks, do: assert("#{Path.basename(path, ".livemd")}.livemd" in tests)
    assert length(tests) == length(@livebooks)
  end

  defp tests do
    for %{name: name} <- __MODULE__.__ex_unit__().tests,
        [_, file] <- [Regex.run(~r/^test (\w+\.livemd)/, to_string(name))],
        do: {:test, file}
  end

  test "embeddings.livemd finds the sentence that answers" do
    {variables, _} = run("embeddings")
    assert variables.closest == "It's so sunny outside!"
  end

  test "chat.livemd knows what was said before" do
    {_, outputs} = run("chat", ["What is the capital of France?", "And of Italy?"])
    assert texts(outputs) =~ "Paris"
    assert texts(outputs) =~ "Rome"
  end

  test "quantised.livemd says the same with a part of the memory" do
    {%{measured: [dense, eight, four]}, _} = run("quantised")
    assert {dense.weights, eight.weights, four.weights} == {"f32", "8 bits", "4 bits"}
    for model <- [dense, eight], do: assert(model.answer =~ "Paris")
    assert dense.megabytes > 1.4 * eight.megabytes and eight.megabytes > 1.1 * four.megabytes
    for model <- [dense, eight, four], do: assert(model.tokens_a_second > 0)
  end

  test "digits.livemd learns to read" do
    {variables, _} = run("digits")
    assert variables.accuracy > 0.85
    assert List.last(variables.points).loss < 0.5 * hd(variables.points).loss
  end

  test "mixed_precision.livemd learns as well in bf16" do
    {%{trained: %{f32: f32, bf16: bf16}}, _} = run("mixed_precision")
    for run <- [f32, bf16], do: assert(run.right > 0.95)
    assert length(f32.losses) == length(bf16.losses)
    # It is another type that computed.
    assert f32.losses != bf16.losses
  end

  test "images.livemd tells shapes apart" do
    {variables, _} = run("images")
    # By chance it is a third.
    assert variables.accuracy > 0.7
    assert variables.guess in variables.shapes
  end

  test "kernels.livemd compares what is the same" do
    {variables, _} = run("kernels")
    assert Enum.all?(variables.agree?, &(&1 == 1)) and length(variables.agree?) == 6
    assert length(variables.measured) == 24
    assert Enum.all?(variables.measured, &(&1.us > 0))
  end

  test "load.livemd answers all callers, in batches, and is watched" do
    {%{summary: summary, told: told}, _} = run("load")
    assert summary.answers == 24 * 40
    assert summary.answers_a_batch > 1

    assert told |> Enum.map(& &1.what) |> Enum.uniq() |> Enum.sort() ==
             ["a batch, ms", "a wait for MLX, ms", "memory, MB"]
  end
end
