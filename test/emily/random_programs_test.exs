defmodule Emily.RandomProgramsTest do
  # Programs at random, and their gradients: evaluated and compiled the same bits, and each operation as on
  # Nx.BinaryBackend.
  use Emily.BackendCase, async: true

  alias Emily.{CheckedBackend, RandomPrograms}

  # A wrong constant in compiled programs showed in 16 of 6,000.
  @compared 1000
  # One whose gradient takes a product of complex numbers, of which only the transpose is read.
  @differed [791_543_536]
  # One whose gradient is of c128.
  @wide [83_770_822]
  # One whose gradient Nx traces with a broadcast that its operand does not fit.
  @misfit [600_078_683]
  @checked 300

  # What Nx refuses while it traces, or has no gradient for.
  @refused [ArgumentError, ArithmeticError]

  defp functions(program) do
    values = [fn inputs -> RandomPrograms.run(program, Tuple.to_list(inputs)) end]
    gradient = fn inputs -> RandomPrograms.gradient(program, Tuple.to_list(inputs)) end
    if RandomPrograms.gradient?(program), do: values ++ [gradient], else: values
  end

  defp results(fun, inputs, compiler) do
    fun
    |> Nx.Defn.jit_apply([inputs], compiler: compiler)
    |> Tuple.to_list()
    |> Enum.map(fn x -> {x.type, x.shape, Enum.map(Nx.to_flat_list(x), &inspect/1)} end)
  rescue
    error in @refused ->
      error.__struct__

    # A gradient may bring numbers of f64 and c64 together, whose type has no place in MLX.
    error in RuntimeError ->
      if error.message =~ "MLX has no type c128", do: :c128, else: reraise(error, __STACKTRACE__)

    error in Emily.Error ->
      if computes?(fun, inputs), do: reraise(error, __STACKTRACE__), else: error.__struct__
  end

  # Whether Nx.BinaryBackend can do what Nx has traced.
  defp computes?(fun, inputs) do
    inputs = inputs |> Tuple.to_list() |> Enum.map(&Nx.backend_copy(&1, Nx.BinaryBackend))

    Nx.with_default_backend(Nx.BinaryBackend, fn ->
      Nx.Defn.jit_apply(fun, [List.to_tuple(inputs)], compiler: Nx.Defn.Evaluator)
    end)

    true
  rescue
    FunctionClauseError -> false
  end

  # All NaN are one; inspected, zeros have their signs.
  test "evaluated and compiled are the same, to the sign of zero" do
    first = @compared * ExUnit.configuration()[:seed]
    Nx.default_backend(Emily.Backend)

    for seed <- Enum.concat(@differed ++ @wide ++ @misfit, first..(first + @compared - 1)) do
      program = RandomPrograms.draw(seed)
      inputs = program.inputs |> on_emily() |> List.to_tuple()

      for fun <- functions(program) do
        evaluated = results(fun, inputs, Nx.Defn.Evaluator)
        compiled = results(fun, inputs, Emily.Compiler)
        assert compiled == evaluated, RandomPrograms.describe(program)
      end
    end
  end

  # The programs are the same each time: that a difference is explained was looked at for these.
  test "each operation is as on Nx.BinaryBackend, but for what the guide explains" do
    Nx.default_backend(CheckedBackend)

    for seed <- 1..@checked do
      program = RandomPrograms.draw(seed)
      inputs = program.inputs |> Enum.map(&Nx.backend_copy(&1, CheckedBackend)) |> List.to_tuple()
      for fun <- functions(program), do: results(fun, inputs, Nx.Defn.Evaluator)

      for {name, kind, text} <- CheckedBackend.differences(),
          not RandomPrograms.explained?(name, kind) do
        flunk("#{name} (#{kind}): #{text}\n" <> RandomPrograms.describe(program))
      end
    end
  end

  test "a difference is found" do
    x = Nx.tensor([1.5, -0.0], backend: CheckedBackend)
    assert CheckedBackend.differences() == []
    Nx.sign(x)
    assert [{:sign, :zero, "0.0 instead of -0.0" <> _}] = CheckedBackend.differences()
    Nx.sign(Nx.tensor([1.0, :neg_infinity], backend: CheckedBackend))
    assert [{:sign, :nan, "-1.0 instead of 1.0" <> _}] = CheckedBackend.differences()
  end

  # As in case 1000000752 of seed 8 of bin/attack's numbers: the gradient of a loop whose node is complex, and whose tensor
  # is not, was sliced.
  test "what is handed over in another type than its node says is compared by its numbers" do
    x = Nx.tensor([1.5, -2.0], backend: CheckedBackend)
    slice = CheckedBackend.slice(Nx.template({1}, :c64), x, [1], [1], [1])
    assert Nx.to_flat_list(slice) == [Complex.new(-2.0, 0.0)]
    assert CheckedBackend.differences() == []
  end

  test "Nx.BinaryBackend gives such a slice the bytes of its type, not of the node's" do
    x = Nx.tensor([1.5, -2.0], type: :f32, backend: Nx.BinaryBackend)
    wrong = Nx.BinaryBackend.slice(Nx.template({1}, :c64), x, [1], [1], [1])
    assert_raise MatchError, fn -> Nx.to_flat_list(wrong) end
  end
end
