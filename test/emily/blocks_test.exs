defmodule Emily.BlocksTest do
  # Every block of Elixir in the guides, the cheatsheet and README runs, or says why it does not. Those that load a model
  # run with a local one in the place of the named. The default backend belongs to the whole VM.
  use ExUnit.Case, async: false

  alias Emily.Blocks

  Code.require_file("../../examples/support/demo.ex", __DIR__)

  # Whole models run here: on a busy machine that takes longer than ExUnit's minute.
  @moduletag timeout: 900_000, capture_log: true

  @pages for path <- Blocks.pages(), do: {path, Blocks.of(path)}

  for {path, blocks} <- @pages,
      Enum.any?(blocks, &(&1.kind == :doctest)) or File.read!(path) =~ "    iex>",
      # These are run by tests of their own.
      path not in ["README.md" | Enum.map(~w(differences migration training), &"guides/#{&1}.md")] do
    doctest_file(path)
  end

  setup do
    {backend, options} = Nx.default_backend()
    Nx.default_backend(Emily.Backend)
    # As for a user, where the rest of the suite forbids it.
    Process.put(Emily.Fallback, :silent)
    on_exit(fn -> Nx.global_default_backend({backend, options}) end)
  end

  test "no block is overlooked" do
    for {path, blocks} <- @pages, do: assert(length(blocks) == Blocks.fences(path), path)
    assert Enum.any?(@pages, fn {_, blocks} -> Enum.any?(blocks, &(&1.kind == :code)) end)
  end

  test "each guide and Livebook is in the documentation" do
    extras = Mix.Project.config()[:docs][:extras]

    for path <- Path.wildcard("{guides,livebooks}/*.{md,cheatmd,livemd}"),
        do: assert(path in extras)
  end

  test "each Livebook can be run from README" do
    readme = File.read!("README.md")
    package = Mix.Project.config()[:package][:name]

    for path <- Path.wildcard("livebooks/*.livemd") do
      page = URI.encode_www_form("https://hexdocs.pm/#{package}/#{Path.basename(path)}")
      assert readme =~ "(https://livebook.dev/run?url=#{page})"
    end
  end

  test "what is not run has a reason" do
    for {path, blocks} <- @pages, %{kind: :not_run} = block <- blocks do
      assert String.length(block.reason) > 10, "#{path}:#{block.line}"
      assert {:ok, _} = Code.string_to_quoted(block.text), "#{path}:#{block.line}"
    end
  end

  test "dependencies are this package in this version" do
    for {path, blocks} <- @pages,
        %{kind: :project, text: text} = block <- blocks,
        text =~ "def deps" do
      module = Blocks.project(block, Module.concat(__MODULE__, "Project#{:erlang.phash2(path)}"))
      assert {:emily, requirement, hex: name} = List.keyfind(module.deps(), :emily, 0)
      project = Mix.Project.config()
      assert {project[:app], project[:package][:name]} == {:emily, to_string(name)}
      assert Version.match?(project[:version], requirement)
    end
  end

  @tag :tmp_dir
  test "configurations are read, and have keys that there are", %{tmp_dir: folder} do
    known =
      for [_, key] <- Regex.scan(~r/^\| `config :emily, :(\w+)`/m, File.read!("README.md")),
          do: key

    assert known != []

    for {path, blocks} <- @pages, %{kind: :config} = block <- blocks, env <- [:prod, :test] do
      config = Blocks.config(block, folder, env)

      for {key, _} <- config[:emily] || [],
          do: assert(to_string(key) in ["mlx" | known], "#{path}:#{block.line}: #{key}")

      assert Keyword.keys(config) -- [:nx, :emily] == [], "#{path}:#{block.line}"
    end
  end

  # What guides name that may not be here, and why.
  missing =
    for {named, module, why} <- [
          {~r/Bumblebee|Axon|load_bumblebee/, Bumblebee, "Bumblebee takes another version of Nx"},
          {~r/Telemetry\.Metrics/, Telemetry.Metrics, "telemetry_metrics is not here"}
        ],
        not Code.ensure_loaded?(module),
        do: {named, why}

  for {path, blocks} <- @pages,
      code = Enum.filter(blocks, &(&1.kind == :code)),
      code != [],
      # Its models are compared with golden ones: test/emily/readme_test.exs.
      path != "README.md" do
    for {named, why} <- missing, Enum.any?(code, &(&1.text =~ named)) do
      IO.puts(:stderr, "SKIPPED: the code of #{path}, since #{why}")
      @tag skip: why
    end

    @code code
    @tag :tmp_dir
    test "the code of #{path}", %{tmp_dir: folder} do
      places = places(@code)

      ExUnit.CaptureIO.capture_io(fn ->
        File.cd!(folder, fn -> Blocks.run(@code, unquote(path), places) end)
      end)
    end
  end

  if Code.ensure_loaded?(Telemetry.Metrics) do
    test "the guide's metrics are of what is reported" do
      block = Enum.find(Blocks.of("guides/serving.md"), &(&1.text =~ "Telemetry.Metrics"))

      Blocks.run(
        [%{block | text: String.replace(block.text, "MyApp", "BlocksTest")}],
        "guides/serving.md",
        []
      )

      metrics =
        BlocksTest.Metrics |> apply(:metrics, []) |> Enum.filter(&(hd(&1.event_name) == :emily))

      assert length(metrics) > 5

      for event <- Enum.uniq(Enum.map(metrics, & &1.event_name)) do
        :telemetry.attach({event, self()}, event, &Emily.Telemetry.echo/4, self())
        on_exit(fn -> :telemetry.detach({event, self()}) end)
      end

      x = Nx.tensor([1, 2, 3])
      # A wait, a fallback, a compilation, and a look at the memory.
      x |> Nx.dot(x) |> Nx.to_number()
      Nx.reduce(x, 0, fn x, y -> Nx.subtract(x, y) end) |> Nx.to_number()
      Nx.Defn.jit_apply(&Nx.add(&1, 17), [x], compiler: Emily.Compiler, cache: false)
      Emily.Telemetry.memory()

      for %{event_name: event, measurement: measure, tags: tags} <- metrics do
        assert_received {^event, measurements, metadata} = message
        send(self(), message)
        # With a unit it is a function of the measurements.
        number =
          if is_function(measure, 1), do: measure.(measurements), else: measurements[measure]

        assert is_number(number)
        for tag <- tags, do: assert(is_map_key(metadata, tag))
      end
    end
  end

  # What the guides name, and what is here of it.
  defp places(code) do
    for {named, local} <- [
          {~s({:hf, "sentence-transformers/all-MiniLM-L6-v2"}),
           fn -> {:local, Demo.model_dir!()} end},
          {~s("SmolLM2-135M-Instruct.Q4_1.gguf"), &Demo.smollm2!/0}
        ],
        Enum.any?(code, &(&1.text =~ named)) do
      {named, local.()}
    end
  end
end
