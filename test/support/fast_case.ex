defmodule Emily.FastCase do
  @moduledoc false
  # What the tests of Emily.Fast share: NumPy's numbers, and how near to them a result has to be.

  use ExUnit.CaseTemplate

  # Read where the tests run, which may be another machine than that which compiled this.
  @fixtures "test/fixtures/fast/kernels.terms"
  @external_resource @fixtures

  using do
    quote do
      import Emily.FastCase
    end
  end

  @types [{:f, 32}, {:f, 16}, {:bf, 16}]
  @backends [Nx.BinaryBackend, Emily.Backend]

  def types, do: @types
  def backends, do: @backends

  @doc "NumPy's cases for some functions of Emily.Fast."
  def cases(functions) do
    {:ok, cases} = :file.consult(@fixtures)
    Enum.filter(cases, &(&1.function in functions))
  end

  @doc "A tensor of a fixture: floats in the given type, integers in s32."
  def tensor({:f, shape, numbers}, type, backend), do: build(numbers, shape, type, backend)
  def tensor({:s, shape, numbers}, _type, backend), do: build(numbers, shape, {:s, 32}, backend)

  defp build(numbers, shape, type, backend),
    do: numbers |> Nx.tensor(type: type, backend: backend) |> Nx.reshape(shape)

  @doc """
  The tensors of a case, those among its options last, and a function from them to a result.
  """
  def call(%{function: function, args: args, opts: opts}, type, backend) do
    {given, opts} = Enum.split_with(opts, fn {_, value} -> is_tuple(value) end)

    tensors =
      for {arg, i} <- Enum.with_index(args ++ Keyword.values(given)) do
        # The table of inverse frequencies is f32 whatever x is.
        type = if function == :rope_with_freqs and i == 2, do: {:f, 32}, else: type
        tensor(arg, type, backend)
      end

    run = fn tensors ->
      {positional, named} = Enum.split(tensors, length(args))
      opts = opts ++ Enum.zip(Keyword.keys(given), named)
      apply(Emily.Fast, function, positional ++ [opts])
    end

    {tensors, run}
  end

  @doc """
  How far a result may be from NumPy's, relative to the number or, for numbers below 1, absolute.

  Inputs are exact in every type, so what is left are the roundings of the kernel: in f32 some
  dozens of half an ulp (6.0e-8), more where a position multiplies the rounding of a frequency; in
  f16 and bf16 at most four of half an ulp (4.9e-4 and 3.9e-3), since MLX carries out the last steps
  in that type on a CPU, and Nx.BinaryBackend truncates to bf16.
  """
  def tolerance({:f, 32}), do: 2.5e-6
  def tolerance({:f, 16}), do: 2.0e-3
  def tolerance({:bf, 16}), do: 1.6e-2

  def assert_near(%Nx.Tensor{} = actual, expected, tolerance) do
    expected = numbers(expected)
    actual = numbers(actual)
    assert length(actual) == length(expected)

    for {{a, e}, i} <- actual |> Enum.zip(expected) |> Enum.with_index() do
      assert is_number(a) and abs(a - e) <= tolerance * max(abs(e), 1.0),
             "element #{i} is #{a}, expected #{e} within #{tolerance}"
    end
  end

  defp numbers(%Nx.Tensor{} = tensor), do: Nx.to_flat_list(tensor)
  defp numbers({_kind, _shape, numbers}), do: numbers
  defp numbers(list) when is_list(list), do: list

  def assert_on(backend, %Nx.Tensor{data: data}), do: assert(data.__struct__ == backend)
end
