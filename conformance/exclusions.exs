defmodule Emily.Conformance.Exclusions do
  @moduledoc false
  # Which of Nx's own tests are left out, one line each, with the reason, and which doctests may differ
  # in the last digit. `mix test.nx --excluded` runs them all, to the letter, to find those that are
  # here without need.

  @reasons [
    digits: "the last printed digit of a transcendental function",
    sign: "a free sign of an eigenvector or a factor",
    binary:
      "tied to Nx.BinaryBackend: terms compared as terms, its rounding errors, its errors on data, " <>
        "formulas that miss a limit at an infinity"
  ]

  # Doctests that run, whose floats may differ in the last digit of a type: the reason, the type, the function,
  # and a piece of the example that no other example of it has.
  @to_last_digit [
    # The exact results are [1, -0.95] and [-1 / 18, 1 / 9, 5 / 18]. Nx takes singular values from the product
    # of the matrix with itself, which BinaryBackend rounds to f32.
    {:binary, :f32, "Nx.LinAlg.least_squares", "[[0, 1], [1, 1], [2, 1], [3, 1]]"},
    {:binary, :f32, "Nx.LinAlg.least_squares", "[[1, 2, 3], [4, 5, 6]]"},
    # 0.56062881 and 0.82806723, which f32 has as 0.56062883 and 0.82806724. Small matrices are computed in f64
    # here, where Nx's rotations and reflections round to f32 on their way.
    {:binary, :f32, "Nx.LinAlg.eigh",
     "iex> {eigenvals, eigenvecs} = Nx.LinAlg.eigh(Nx.tensor([[[2, 5],[5, 6]]"},
    {:binary, :f32, "Nx.LinAlg.eigh", "Nx.vectorize(x: 2)"},
    # The root of a half, twice.
    {:binary, :f32, "Nx.LinAlg.qr", "mode: :reduced"},
    # One, and not 0.99999994.
    {:binary, :f32, "Nx.LinAlg.svd", "[[2, 0, 0], [0, 3, 0], [0, 0, -1], [0, 0, 0]]))"},
    {:digits, :f64, "Nx.erfc", "[1, 2, 3], names: [:x], type: :f64"},
    {:digits, :f64, "Nx.log1p", "[1, 2, 3], names: [:x], type: :f64"},
    {:digits, :f64, "Nx.sin", "[1, 2, 3], names: [:x], type: :f64"},
    # Right to f64 here, BinaryBackend's formula is to eight digits.
    {:binary, :f32, "Nx.erf_inv", "Nx.tensor(0.1, type: :f64)"},
    {:binary, :f32, "Nx.erf_inv", "[0.1, 0.5, 0.9], names: [:x], type: :f64"}
  ]

  # The reason, the function, and a piece of the example.
  @doctests [
    # The exact results are [1, 0] and [[4, -1], [-3, 1]].
    {:binary, "Nx.LinAlg.least_squares", "Nx.tensor([[1, 2], [2, 3]]), Nx.tensor([1, 2]))"},
    {:binary, "Nx.LinAlg.pinv", "Nx.LinAlg.pinv(Nx.tensor([[1, 1], [3, 4]]))"},
    # Two of its eigenvalues are equal: their vectors are any two of a plane.
    {:sign, "Nx.LinAlg.eigh", "[[0, 1, 2], [1, 0, 2], [2, 2, 3]]"}
  ]

  # On Nx 0.11 only, whose singular values have larger errors.
  @to_last_digit_0_11 [
    {:binary, :f32, "Nx.LinAlg.pinv", "[[0.5, 0], [0, 1], [0.5, 0]]"}
  ]

  @doctests_0_11 [
    {:sign, "Nx.LinAlg.svd", "full_matrices?: false"},
    {:binary, "Nx.LinAlg.least_squares", "[[0, 1], [1, 1], [2, 1], [3, 1]]"},
    {:binary, "Nx.LinAlg.least_squares", "[[1, 2, 3], [4, 5, 6]]"}
  ]

  # The reason, the module and the test.
  @tests [
    {:binary, Nx.Defn.EvaluatorTest, "test slice"},
    {:binary, Nx.Defn.ExprTest, "test constant optimizations logsumexp"},
    {:binary, Nx.Defn.ExprTest, "test constant optimizations preserves names"},
    {:binary, Nx.Defn.ExprTest,
     "test constant optimizations upcast float constants when operating against higher precision types"},
    {:binary, Nx.Defn.ExprTest, "test inspect with fun"},
    {:binary, Nx.Defn.ExprTest, "test inspect with metadata"},
    {:binary, Nx.Defn.ExprTest, "test inspect with parameters"},
    {:binary, Nx.Defn.ExprTest, "test inspect with scalar"},
    {:binary, Nx.Defn.ExprTest, "test inspect with tensors"},
    {:binary, Nx.Defn.GradTest,
     "test conv rule computes gradient of kernel when image is a constant closure variable"},
    {:binary, Nx.Defn.GradTest, "test metadata computes custom grad"},
    {:binary, Nx.Defn.GradTest,
     "test vectorization supports combination of vectorized and non-vectorized tensors"},
    {:binary, Nx.Defn.GradTest,
     "test vectorization supports combination of vectorized and non-vectorized tensors over composed function"},
    {:binary, Nx.Defn.TreeTest, "test apply_args handles concatenate"},
    {:binary, Nx.Defn.TreeTest, "test apply_args handles regular operations"},
    {:binary, Nx.ComplexTest, "test binary operations atan2"},
    {:binary, Nx.NonFiniteTest, "test binary operations atan2"},
    {:binary, Nx.NonFiniteTest, "test binary operations remainder"},
    {:binary, Nx.RandomTest, "test types multivariate_normal"},
    {:binary, Nx.RandomTest, "test types uniform"},
    {:binary, Nx.ServingTest, "test run/2 with client pre/post"},
    {:binary, Nx.VectorizeTest, "test cond only executes selected branches"},
    {:binary, NxTest, "test bitshift raises for negative numbers on the left"},
    {:binary, NxTest, "test bitshift raises for negative numbers on the right"},
    {:binary, NxTest, "test gather raises when out of bounds"},
    {:binary, NxTest, "test indexed_add raises when out of bounds"},
    {:binary, NxTest, "test indexed_put raises when out of bounds"},
    {:digits, Nx.Defn.GradTest, "test concatenate computes grad for powers of a {2, 2}-tensor"},
    {:digits, NxTest, "test fft/ifft Bluestein clause"},
    # A product as a fold that starts from 1 + 0i, whose product with an infinity is NaN; Nx.multiply/2 of
    # the same numbers is not.
    {:binary, Nx.NonFiniteTest, "test aggregate operations product"},
    # The formulas of Complex divide infinity by infinity, or add angles of infinities. The limits, and
    # C99's Annex G, are pi / 2, 1, and the angle 0 for acosh and asinh; those of real numbers are also
    # BinaryBackend's.
    {:binary, Nx.NonFiniteTest, "test unary operations acosh"},
    {:binary, Nx.NonFiniteTest, "test unary operations asinh"},
    {:binary, Nx.NonFiniteTest, "test unary operations atan"},
    {:binary, Nx.NonFiniteTest, "test unary operations tanh"},
    {:binary, Nx.Defn.EvaluatorTest, "test decompositions qr"},
    {:sign, Nx.LinAlgTest, "test qr factors a square matrix"},
    {:sign, Nx.LinAlgTest, "test qr factors tall matrix"},
    {:sign, Nx.LinAlgTest, "test svd finds the singular values of tall matrices"}
  ]

  def reasons, do: @reasons

  @doc """
  The excluded tests of the modules loaded, each with its reason. Raises for a line that names none,
  or an example that is not the only one.
  """
  def find(modules) do
    tests = tests(modules)
    named = Map.new(tests, &{{&1.module, to_string(&1.name)}, &1})
    loaded = MapSet.new(modules)

    excluded =
      for {reason, module, name} <- @tests, module in loaded do
        test = named[{module, name}] || raise "no test of #{inspect(module)} is called #{name}"
        {test, reason}
      end

    for({reason, function, text} <- doctests(), do: {doctest(tests, function, text), reason}) ++
      excluded
  end

  @doc "The doctests that may differ in the last digit of a type, each with the type and the reason."
  def to_last_digit(modules) do
    tests = tests(modules)
    named = @to_last_digit ++ if(old_nx?(), do: @to_last_digit_0_11, else: [])

    for {reason, type, function, text} <- named,
        do: {doctest(tests, function, text), type, reason}
  end

  defp tests(modules) do
    Enum.sort_by(
      for(module <- modules, test <- module.__ex_unit__().tests, do: test),
      &number(to_string(&1.name))
    )
  end

  defp doctests,
    do: @doctests ++ if(old_nx?(), do: @doctests_0_11, else: [])

  defp old_nx?, do: Version.match?(to_string(Application.spec(:nx, :vsn)), "< 0.12.0")

  @doc "A test as a filter of ExUnit. Modules may have tests of one name, functions have not."
  def filter(%{tags: %{test_type: :doctest}, name: name}), do: {:test, name}
  def filter(%{tags: %{file: file, line: line}}), do: {:location, {file, line}}

  defp doctest(tests, function, text) do
    candidates =
      Enum.filter(tests, &String.starts_with?(to_string(&1.name), "doctest #{function}/"))

    examples = examples(function)

    if length(examples) != length(candidates),
      do: raise("#{function}: #{length(examples)} examples, #{length(candidates)} doctests")

    found = for {test, example} <- Enum.zip(candidates, examples), example =~ text, do: test

    case found do
      [test] -> test
      _ -> raise "#{length(found)} examples of #{function} hold #{text}"
    end
  end

  defp number(name) do
    case Regex.run(~r"\((\d+)\)$", name) do
      [_, number] -> String.to_integer(number)
      nil -> 0
    end
  end

  # The examples of a function's documentation, in the order of its doctests: empty lines
  # part them.
  defp examples(function) do
    [_, module, name] = Regex.run(~r"^(.*)\.(.+)$", function)
    {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(Module.concat([module]))

    found =
      for {{:function, found, _}, _, _, %{"en" => text}, _} <- docs,
          to_string(found) == name,
          do: text

    text = Enum.join(found, "\n\n")

    for block <- String.split(text, ~r"\n\s*\n"), block =~ "iex>", do: block
  end
end
