defmodule Emily.Fast.Einsum do
  @moduledoc false
  # Einstein summation. The equation is completed and the order of the contractions is found where
  # the function is called; MLX and the composed form then follow the same order.

  @behaviour Emily.Fast.Node

  # `equation` has letters only, and its result. `path` is what Emily.Fast.Einsum.Path finds.
  defstruct [:equation, :path]

  import Emily.Fast.Check, only: [describe: 1, fail!: 2]

  alias Emily.Fast.{Composed, Node}
  alias Emily.Fast.Einsum.{Equation, Path}

  @fun "einsum/2"

  # As many as NumPy's: the search for an order looks at every pair before each contraction.
  @most_operands 64

  def run(subscripts, operands) do
    operands!(operands)
    {groups, output, sizes} = Equation.parse!(subscripts, Enum.map(operands, & &1.shape))

    kernel = %__MODULE__{
      equation: Equation.text(groups, output),
      path: operands |> Enum.zip_with(groups, &long(&1.shape, &2)) |> Path.find(output, sizes)
    }

    Node.emit(kernel, operands, Nx.template(shape(output, sizes), type(operands)))
  catch
    {:refused, why} -> fail!(@fun, why <> context(subscripts, operands))
  end

  defp context(subscripts, [_ | _] = operands) do
    if Enum.all?(operands, &is_struct(&1, Nx.Tensor)) do
      ", in #{inspect(subscripts)} with operands of #{Enum.map_join(operands, "; ", &describe/1)}"
    else
      ", in #{inspect(subscripts)}"
    end
  end

  defp context(_subscripts, _operands), do: ""

  defp shape(letters, sizes), do: letters |> Enum.map(&sizes[&1]) |> List.to_tuple()

  # As MLX promotes, which is otherwise than Nx in two cases.
  defp type(operands), do: operands |> Enum.map(& &1.type) |> Enum.reduce(&promote/2)

  defp promote({:f, 16}, {:bf, 16}), do: {:f, 32}
  defp promote({:bf, 16}, {:f, 16}), do: {:f, 32}
  defp promote({:f, 64}, {:c, 64}), do: {:c, 64}
  defp promote({:c, 64}, {:f, 64}), do: {:c, 64}
  defp promote(a, b), do: Nx.Type.merge(a, b)

  ## Operands

  defp operands!([_ | _] = operands) do
    count = length(operands)

    if count > @most_operands,
      do: fail!(@fun, "takes up to #{@most_operands} operands, got #{count}")

    Enum.each(operands, &operand!/1)
    unless Enum.any?(operands, &traced?/1), do: on_emily!(operands)
  end

  defp operands!(other),
    do: refuse!("expects a list of at least one tensor, got: #{inspect(other)}")

  defp operand!(%Nx.Tensor{type: {kind, _} = type} = tensor) do
    if tensor.vectorized_axes != [],
      do: refuse!("takes no vectorized operand (use Nx.devectorize/2)")

    unless kind in [:f, :bf, :c],
      do: refuse!("takes float and complex types, got #{Nx.Type.to_string(type)}")
  end

  defp operand!(other), do: refuse!("expects tensors, got: #{inspect(other)}")

  defp traced?(tensor), do: is_struct(tensor.data, Nx.Defn.Expr)

  # Outside of defn the operands go to MLX as they are.
  defp on_emily!(operands) do
    for %{data: %backend{}} <- operands, backend != Emily.Backend do
      refuse!("expects every operand on Emily.Backend outside of defn, got #{inspect(backend)}")
    end

    case operands |> Enum.map(& &1.data.device) |> Enum.uniq() do
      [_device] -> :ok
      devices -> refuse!("expects operands of one device, got: #{inspect(devices)}")
    end
  end

  @spec refuse!(String.t()) :: no_return
  defp refuse!(why), do: throw({:refused, why})

  ## What both forms do

  @doc "The letters whose axes of `shape` are longer than 1. The others broadcast, and are left out."
  def long(shape, letters),
    do: for({letter, size} <- Enum.zip(letters, Tuple.to_list(shape)), size > 1, do: letter)

  @doc """
  Contracts terms, each a value and its letters, along the kernel's path.

  `contract` gets two terms and the letters that are needed of them, and answers a term.
  """
  def contract(%{path: path}, terms, output, contract) do
    [term] =
      Enum.reduce(path, terms, fn {i, j}, terms ->
        {right, terms} = List.pop_at(terms, j)
        {left, terms} = List.pop_at(terms, i)
        terms ++ [contract.(left, right, Enum.concat([output | Enum.map(terms, &elem(&1, 1))]))]
      end)

    term
  end

  @doc "The letters of one of the groups alone, which are summed there."
  def alone(groups, output) do
    for({letter, 1} <- groups |> Enum.flat_map(&Enum.uniq/1) |> Enum.frequencies(), do: letter) --
      output
  end

  ## The form composed of Nx functions

  @impl true
  def callback(_kernel), do: :fast_einsum

  @impl true
  def composed(%__MODULE__{equation: equation} = kernel, tensors) do
    {groups, output, sizes} = Equation.parse!(equation, Enum.map(tensors, & &1.shape))
    {shape, type} = {shape(output, sizes), type(tensors)}
    output = long(shape, output)

    terms =
      for {group, t} <- Enum.zip(groups, tensors) do
        letters = long(t.shape, group)
        short = for {size, axis} <- Enum.with_index(Tuple.to_list(t.shape)), size == 1, do: axis

        t
        |> Nx.as_type(Composed.compute_type(type))
        |> Nx.squeeze(axes: short)
        |> diagonals(letters)
      end

    alone = terms |> Enum.map(&elem(&1, 1)) |> alone(output)
    terms = Enum.map(terms, &sum(&1, alone))
    {result, letters} = contract(kernel, terms, output, &pair/3)
    result |> arrange(letters, output) |> Nx.reshape(shape) |> Nx.as_type(type)
  end

  # Of axes with one letter the diagonal: every so many elements of what they make flattened.
  defp diagonals(t, letters) do
    case letters -- Enum.uniq(letters) do
      [] ->
        {t, letters}

      [letter | _] ->
        {same, rest} = letters |> Enum.with_index() |> Enum.split_with(&(elem(&1, 0) == letter))
        {rest, axes} = Enum.unzip(rest)
        t = Nx.transpose(t, axes: axes ++ Enum.map(same, &elem(&1, 1)))

        {kept, [size | _] = repeated} = t.shape |> Tuple.to_list() |> Enum.split(length(axes))
        lengths = kept ++ [Enum.product(repeated)]
        stride = div(List.last(lengths) - 1, size - 1)

        t
        |> Nx.reshape(List.to_tuple(lengths))
        |> Nx.slice(Enum.map(lengths, fn _ -> 0 end), lengths,
          strides: Enum.map(kept, fn _ -> 1 end) ++ [stride]
        )
        |> diagonals(rest ++ [letter])
    end
  end

  defp sum({t, letters}, alone) do
    case for {letter, axis} <- Enum.with_index(letters), letter in alone, do: axis do
      [] -> {t, letters}
      axes -> {Nx.sum(t, axes: axes), letters -- alone}
    end
  end

  defp pair({x, xs}, {y, ys}, needed) do
    shared = Enum.filter(xs, &(&1 in ys))

    case Enum.split_with(shared, &(&1 in needed)) do
      {_batch, []} ->
        multiply({x, xs}, {y, ys})

      {batch, inner} ->
        {x, xs} = batch_first({x, xs}, batch)
        {y, ys} = batch_first({y, ys}, batch)
        axes = Enum.with_index(batch, fn _, axis -> axis end)
        t = Nx.dot(x, places(xs, inner), axes, y, places(ys, inner), axes)
        {t, (xs -- inner) ++ (ys -- shared)}
    end
  end

  # The axes of both, those of x first, each operand with size 1 where it has none.
  defp multiply({x, xs}, {y, ys}) do
    letters = xs ++ (ys -- xs)
    {widen(x, xs, letters) |> Nx.multiply(widen(y, ys, letters)), letters}
  end

  defp widen(t, own, letters) do
    order = Enum.filter(letters, &(&1 in own))
    t = arrange(t, own, order)
    sizes = Map.new(Enum.zip(order, Tuple.to_list(t.shape)))
    Nx.reshape(t, letters |> Enum.map(&Map.get(sizes, &1, 1)) |> List.to_tuple())
  end

  # Nx.dot/6 takes the batch from the leading axes.
  defp batch_first({t, letters}, batch) do
    order = batch ++ (letters -- batch)
    {arrange(t, letters, order), order}
  end

  defp arrange(t, order, order), do: t
  defp arrange(t, from, to), do: Nx.transpose(t, axes: places(from, to))

  defp places(letters, wanted),
    do: for(letter <- wanted, do: Enum.find_index(letters, &(&1 == letter)))
end
