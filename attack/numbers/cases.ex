defmodule Attack.Numbers do
  @moduledoc false
  # Programs at random of 40 operations, with conditions, loops and gradients: evaluated, compiled, and compiled with its
  # chains apart they give the same bits, and each operation what Nx.BinaryBackend gives in f64, within what
  # Emily.CheckedBackend allows. What differs is made smaller by StreamData.

  @behaviour Attack.Cases

  import Emily.BackendCase, only: [on_emily: 1]
  alias Emily.{CheckedBackend, RandomPrograms}

  @operations 40
  # One in so many is compared with Nx.BinaryBackend, which takes most of the time.
  @checked 8
  @shrinking 80
  # What Nx refuses while it traces, or has no gradient for; and what Nx.BinaryBackend, which computes c128, does not write,
  # where Nx says f64 of what is complex: in gradients of loops.
  @refused [ArgumentError, ArithmeticError, CaseClauseError]

  @impl true
  def prepare(seed, _folder), do: %{seed: seed}

  @impl true
  def describe(state, number) do
    [drawn] = Enum.take(StreamData.resize(programs(state, number), 1), 1)
    drawn |> program() |> RandomPrograms.describe()
  end

  @impl true
  def run(state, number) do
    check = if rem(number, @checked) == 0, do: &checked/1, else: &compared/1

    options = [initial_seed: {0, 0, 0}, max_runs: 1, max_shrinking_steps: @shrinking]

    case StreamData.check_all(programs(state, number), options, fn drawn ->
           with {:fault, key, text} <- drawn |> program() |> check.(),
                do: {:error, {key, text}}
         end) do
      {:ok, _} -> :ok
      {:error, %{shrunk_failure: {key, text}}} -> {:fault, key, text}
    end
  end

  # The numbers that make a program: it is made smaller by leaving some out.
  defp programs(state, number) do
    Attack.Cases.seed(state.seed, number)
    [inputs | steps] = for _ <- 0..@operations, do: :rand.uniform(2 ** 40)

    steps
    |> Enum.map(fn step ->
      # A step is there, or, made smaller, not.
      StreamData.frequency([
        {1, StreamData.constant([])},
        {1_000_000, StreamData.constant([step])}
      ])
    end)
    |> StreamData.fixed_list()
    |> StreamData.map(&{inputs, Enum.concat(&1)})
  end

  # Drawn on a backend that does not depend on the case before.
  defp program({inputs, steps}),
    do: Nx.with_default_backend(Nx.BinaryBackend, fn -> RandomPrograms.of(inputs, steps) end)

  defp compared(program) do
    Nx.default_backend(Emily.Backend)
    inputs = program.inputs |> on_emily() |> List.to_tuple()

    each(program, fn fun, what ->
      evaluated = results(fun, inputs, compiler: Nx.Defn.Evaluator)
      one_pass = results(fun, inputs, compiler: Emily.Compiler, cache: false)
      apart = results(fun, inputs, compiler: Emily.Compiler, cache: false, fuse: false)

      cond do
        one_pass != evaluated ->
          differs("#{what}: compiled and evaluated", one_pass, evaluated, program)

        apart != evaluated ->
          differs("#{what}: compiled without chains and evaluated", apart, evaluated, program)

        true ->
          {:ok, :same}
      end
    end)
  end

  defp checked(program) do
    Nx.default_backend(CheckedBackend)
    inputs = program.inputs |> Enum.map(&Nx.backend_copy(&1, CheckedBackend)) |> List.to_tuple()

    each(program, fn fun, what ->
      results(fun, inputs, compiler: Nx.Defn.Evaluator)

      case for(
             {name, kind, text} <- CheckedBackend.differences(),
             not RandomPrograms.explained?(name, kind),
             do: {name, kind, text}
           ) do
        [] ->
          {:ok, :same}

        [{name, kind, text} | _] ->
          {:fault, "#{what}: #{name} (#{kind}) and Nx.BinaryBackend",
           text <> "\n" <> RandomPrograms.describe(program)}
      end
    end)
  end

  # The values, and the gradient where there is one.
  defp each(program, compare) do
    values = fn inputs -> RandomPrograms.run(program, Tuple.to_list(inputs)) end
    gradient = fn inputs -> RandomPrograms.gradient(program, Tuple.to_list(inputs)) end

    with {:ok, _} = same <- compare.(values, "values") do
      if RandomPrograms.gradient?(program), do: compare.(gradient, "gradient"), else: same
    end
  end

  # All NaN are one; inspected, zeros have their signs.
  defp results(fun, inputs, options) do
    fun
    |> Nx.Defn.jit_apply([inputs], options)
    |> Tuple.to_list()
    |> Enum.map(fn x -> {x.type, x.shape, Enum.map(Nx.to_flat_list(x), &inspect/1)} end)
  rescue
    error in @refused -> error.__struct__
  end

  defp differs(key, one, other, program) do
    text = "#{first(one, other)}\n" <> RandomPrograms.describe(program)
    {:fault, key, text}
  end

  defp first(one, other) when is_list(one) and is_list(other) do
    {{x, y}, at} =
      one |> Enum.zip(other) |> Enum.with_index() |> Enum.find(fn {{x, y}, _} -> x != y end)

    "register #{at}: #{inspect(x, limit: 60)} and #{inspect(y, limit: 60)}"
  end

  defp first(one, other), do: inspect({one, other}, limit: 60)
end
