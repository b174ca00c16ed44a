defmodule Emily.Conformance.Load do
  @moduledoc false
  # Nx's doctests and test files as modules.

  alias Emily.Conformance.Equality

  @doctested [
    Nx,
    Nx.LinAlg,
    Nx.Random,
    Nx.Constants,
    Nx.Defn,
    Nx.Defn.Kernel,
    Nx.Serving,
    Nx.Batch
  ]
  @support ~w(backends container distributed_servings helpers)
  @files ~w(nx_test nx/batch_test nx/complex_test nx/constants_test nx/lin_alg_test) ++
           ~w(nx/non_finite_test nx/random_test nx/serving_test nx/vectorize_test nx/defn_test nx/defn/*_test)

  @doc "The doctests of Nx's modules."
  def doctests, do: Enum.map(@doctested, &doctests/1)

  # Its examples call the macros of defn as a defn does.
  defp doctests(Nx.Defn.Kernel) do
    defmodule Kernel do
      use ExUnit.Case, async: true
      import Elixir.Kernel, only: []

      import Nx.Defn.Kernel,
        except: [
          alias: 1,
          alias: 2,
          case: 2,
          cond: 1,
          import: 1,
          import: 2,
          require: 1,
          require: 2
        ]

      doctest Nx.Defn.Kernel
    end

    __MODULE__.Kernel
  end

  defp doctests(module) do
    name = Module.concat(__MODULE__, module)

    source = to_string(module.__info__(:compile)[:source])

    # What `doctest` does, whose comparisons of text cannot be replaced. The text around the functions
    # is no example: it defines modules that are not there.
    tests =
      for {title, test, tags} <- ExUnit.DocTest.__doctests__(module, except: [:moduledoc]) do
        function = :"doctest #{title}"
        of_test = [source, tags[:doctest_line], :doctest, title, Macro.escape(tags)]

        quote do
          ExUnit.Case.register_test(__MODULE__, unquote_splicing(of_test))
          def unquote(function)(_), do: unquote(by_text(test, function))
        end
      end

    contents = [quote(do: use(ExUnit.Case, async: true)) | tests]
    Module.create(name, contents, Macro.Env.location(__ENV__))
    name
  end

  # A doctest whose texts `inspected/2` compares.
  defp by_text(test, function) do
    Macro.prewalk(test, fn
      {{:., _, [{:__aliases__, _, [:ExUnit, :DocTest]}, :__inspect__]}, _, arguments} ->
        quote(do: unquote(__MODULE__).inspected(unquote(function), unquote(arguments)))

      other ->
        other
    end)
  end

  @doc false
  def inspected(function, [value, text | _] = arguments) do
    if not Equality.same_text?(function, inspect(value), text),
      do: apply(ExUnit.DocTest, :__inspect__, arguments)
  end

  @doc """
  The test modules of the files of a checkout of Nx; a package from Hex carries none. Those of servings
  compare all options, and know of no compiler among them.
  """
  def files(folder, compiled?) do
    if File.dir?(Path.join(folder, "test")) do
      # Some tests name their own file, or read one.
      File.cd!(folder, fn ->
        for name <- @support,
            path = "test/support/#{name}.ex",
            File.exists?(path),
            do: compile(path)

        for pattern <- @files,
            path <- Path.wildcard("test/#{pattern}.exs"),
            not (compiled? and pattern == "nx/serving_test"),
            {module, _} <- compile(path),
            function_exported?(module, :__ex_unit__, 0),
            do: module
      end)
    else
      IO.puts("LEFT OUT: Nx's own test files: there is no #{folder}/test. Its doctests run.\n")
      []
    end
  end

  defp compile(path) do
    path
    |> File.read!()
    |> Code.string_to_quoted!(file: path)
    |> Macro.prewalk(&by_value/1)
    |> Code.compile_quoted(path)
  end

  defp by_value({check, meta, [{:==, _, [left, right]} | rest]})
       when check in [:assert, :refute, :unless] do
    same = quote(do: Emily.Conformance.Equality.same?(unquote(left), unquote(right)))
    {check, meta, [same | rest]}
  end

  # They run once, above.
  defp by_value({:doctest, meta, _}), do: {:__block__, meta, []}
  defp by_value(other), do: other
end
