defmodule Emily.Conformance.Load do
  @moduledoc false
  # A library's doctests and test files as modules.

  alias Emily.Conformance.Equality

  @doc "The doctests of a module, as a module of tests."
  # Its examples call the macros of defn as a defn does.
  def doctests(Nx.Defn.Kernel) do
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

  def doctests(module) do
    name = Module.concat(__MODULE__, module)
    contents = [quote(do: use(ExUnit.Case, async: true)) | tests(module)]
    Module.create(name, contents, Macro.Env.location(__ENV__))
    name
  end

  @doc "The doctests of a module, in a test file of its own, whose aliases the examples take."
  defmacro doctest_here(module) do
    tests = module |> Macro.expand(__CALLER__) |> tests()
    {:__block__, [], tests}
  end

  # What `doctest` does, whose comparisons of text cannot be replaced. The text around the functions
  # is no example: it defines modules that are not there.
  defp tests(module) do
    source = to_string(module.__info__(:compile)[:source])

    for {title, test, tags} <- ExUnit.DocTest.__doctests__(module, except: [:moduledoc]) do
      function = :"doctest #{title}"
      of_test = [source, tags[:doctest_line], :doctest, title, Macro.escape(tags)]

      quote do
        ExUnit.Case.register_test(__MODULE__, unquote_splicing(of_test))
        def unquote(function)(_), do: unquote(by_text(test, function))
      end
    end
  end

  # A doctest whose texts `inspected/2` compares, and whose values `tested/2`.
  defp by_text(test, function) do
    Macro.prewalk(test, fn
      {{:., _, [{:__aliases__, _, [:ExUnit, :DocTest]}, :__inspect__]}, _, arguments} ->
        quote(do: unquote(__MODULE__).inspected(unquote(function), unquote(arguments)))

      {{:., _, [{:__aliases__, _, [:ExUnit, :DocTest]}, :__test__]}, _, arguments} ->
        quote(do: unquote(__MODULE__).tested(unquote(function), unquote(arguments)))

      other ->
        other
    end)
  end

  @doc false
  def inspected(function, [value, text | _] = arguments) do
    if not Equality.same_text?(function, inspect(value), text),
      do: apply(ExUnit.DocTest, :__inspect__, arguments)
  end

  @doc false
  def tested(function, [value, expected | _] = arguments) do
    if not Equality.same_value?(function, value, expected),
      do: apply(ExUnit.DocTest, :__test__, arguments)
  end

  @doc """
  The test modules of the files of a library's checkout that `patterns` name, with the files of its test/support
  before them. A package from Hex carries none. With `doctests: :here` the doctests that a file names run in it, otherwise
  nowhere.
  """
  def files(folder, support, patterns, options \\ []) do
    if File.dir?(Path.join(folder, "test")) do
      # Some tests name their own file, or read one.
      File.cd!(folder, fn ->
        for name <- support,
            path = "test/support/#{name}.ex",
            File.exists?(path),
            do: compile(path, options)

        for pattern <- patterns,
            path <- Path.wildcard("test/#{pattern}.exs"),
            {module, _} <- compile(path, options),
            function_exported?(module, :__ex_unit__, 0),
            do: module
      end)
    else
      IO.puts("LEFT OUT: test files: there is no #{folder}/test. The doctests run.\n")
      []
    end
  end

  defp compile(path, options) do
    path
    |> File.read!()
    |> Code.string_to_quoted!(file: path)
    |> Macro.prewalk(&by_value/1)
    |> Macro.prewalk(&doctest(&1, options[:doctests]))
    |> Code.compile_quoted(path)
  end

  defp by_value({check, meta, [{:==, _, [left, right]} | rest]})
       when check in [:assert, :refute, :unless] do
    same = quote(do: Emily.Conformance.Equality.same?(unquote(left), unquote(right)))
    {check, meta, [same | rest]}
  end

  defp by_value(other), do: other

  defp doctest({:doctest, meta, [module | _]}, :here) do
    quote line: meta[:line] do
      require unquote(__MODULE__)
      unquote(__MODULE__).doctest_here(unquote(module))
    end
  end

  defp doctest({:doctest, meta, _}, nil), do: {:__block__, meta, []}
  defp doctest(other, _), do: other
end
