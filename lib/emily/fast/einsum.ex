defmodule Emily.Fast.Einsum do
  @moduledoc false
  # The eager einsum: the equation is checked and completed here, so that MLX gets nothing that it
  # would refuse or misread.

  import Emily.Fast.Check, only: [describe: 1, fail!: 2, not_vectorized!: 2]

  @fun "einsum/2"
  @max_elements 2_147_483_647

  def run(subscripts, operands) do
    device = operands |> operands!() |> device!()
    equation = equation!(subscripts, Enum.map(operands, & &1.shape))
    ref = Emily.Native.einsum(equation, Enum.map(operands, & &1.data.ref), device)
    shape = Emily.Native.shape(ref)

    %Nx.Tensor{
      shape: shape,
      type: nx_type(Emily.Native.dtype(ref)),
      names: List.duplicate(nil, tuple_size(shape)),
      vectorized_axes: [],
      data: %Emily.Backend{ref: ref, device: device}
    }
  end

  ## Operands

  defp operands!([_ | _] = operands), do: Enum.map(operands, &operand!/1)

  defp operands!(other),
    do: fail!(@fun, "expects a list of at least one tensor, got: #{inspect(other)}")

  defp operand!(%Nx.Tensor{data: %Emily.Backend{}, type: {kind, _}} = tensor) do
    not_vectorized!(@fun, operand: tensor)

    unless kind in [:f, :bf, :c] do
      fail!(@fun, "expects operands of a float or complex type, got #{describe(tensor)}")
    end

    tensor
  end

  defp operand!(%Nx.Tensor{data: %Nx.Defn.Expr{}}),
    do: fail!(@fun, "is eager only: it cannot be called inside defn or Nx.Defn.jit/2")

  defp operand!(%Nx.Tensor{data: %backend{}} = tensor) do
    fail!(
      @fun,
      "expects every operand on Emily.Backend, got #{describe(tensor)} on #{inspect(backend)}"
    )
  end

  defp operand!(other), do: fail!(@fun, "expects tensors, got: #{inspect(other)}")

  defp device!(operands) do
    case operands |> Enum.map(& &1.data.device) |> Enum.uniq() do
      [device] -> device
      devices -> fail!(@fun, "expects operands of one device, got: #{inspect(devices)}")
    end
  end

  defp nx_type(:bool), do: {:u, 8}
  defp nx_type(:bf16), do: {:bf, 16}
  defp nx_type(:c64), do: {:c, 64}
  defp nx_type(dtype), do: Nx.Type.normalize!(dtype)

  ## The equation

  @doc "The equation without spaces and with its result, once it fits the shapes."
  def equation!(subscripts, shapes) when is_binary(subscripts) do
    {inputs, output} = parse!(subscripts)

    if length(inputs) != length(shapes) do
      fail!(
        @fun,
        "got #{length(shapes)} operands for #{length(inputs)} groups in #{inspect(subscripts)}"
      )
    end

    {letters, ellipsis} = inputs |> Enum.zip(shapes) |> Enum.reduce({%{}, []}, &measure!/2)
    output = output || implied(inputs)
    output!(output, letters, ellipsis, inputs)

    Enum.map_join(inputs, ",", &to_text/1) <> "->" <> to_text(output)
  end

  def equation!(other, _shapes),
    do: fail!(@fun, "expects the subscripts as a string, got: #{inspect(other)}")

  defp parse!(subscripts) do
    case subscripts |> String.replace(" ", "") |> String.split("->") do
      [inputs] -> {groups!(inputs, subscripts), nil}
      [inputs, output] -> {groups!(inputs, subscripts), group!(output, subscripts)}
      _ -> fail!(@fun, "expects at most one \"->\" in #{inspect(subscripts)}")
    end
  end

  defp groups!(text, subscripts),
    do: for(group <- String.split(text, ","), do: group!(group, subscripts))

  # A group as {letters before the ellipsis, :ellipsis or nil, letters after it}.
  defp group!(text, subscripts) do
    case String.split(text, "...") do
      [letters] -> {letters!(letters, subscripts), nil, []}
      [head, tail] -> {letters!(head, subscripts), :ellipsis, letters!(tail, subscripts)}
      _ -> fail!(@fun, "expects at most one ellipsis a group in #{inspect(subscripts)}")
    end
  end

  defp letters!(text, subscripts) do
    for <<char::utf8 <- text>> do
      if char in ?a..?z or char in ?A..?Z do
        char
      else
        fail!(
          @fun,
          "expects letters, commas, \"...\" and \"->\" in #{inspect(subscripts)}, " <>
            "got: #{inspect(<<char::utf8>>)}"
        )
      end
    end
  end

  # Adds an operand's sizes to those of the letters and of the ellipsis (right to left).
  defp measure!({{head, ellipsis, tail} = group, shape}, {letters, wild}) do
    sizes = Tuple.to_list(shape)
    named = length(head) + length(tail)
    rest = length(sizes) - named

    if rest < 0 or (ellipsis == nil and rest > 0) do
      fail!(@fun, "got an operand of shape #{inspect(shape)} for the group \"#{to_text(group)}\"")
    end

    {first, others} = Enum.split(sizes, length(head))
    {middle, last} = Enum.split(others, rest)
    own = diagonal!(Enum.zip(head ++ tail, first ++ last), group, shape)

    {Map.merge(letters, own, fn letter, a, b -> common!(a, b, "axis \"#{<<letter>>}\"") end),
     widen!(wild, Enum.reverse(middle))}
  end

  defp diagonal!(pairs, group, shape) do
    Enum.reduce(pairs, %{}, fn {letter, size}, own ->
      if Map.get(own, letter, size) != size do
        fail!(
          @fun,
          "takes the diagonal of equal axes only, got shape #{inspect(shape)} for the group " <>
            "\"#{to_text(group)}\""
        )
      end

      Map.put(own, letter, size)
    end)
  end

  defp widen!([a | as], [b | bs]), do: [common!(a, b, "the ellipsis") | widen!(as, bs)]
  defp widen!([], bs), do: bs
  defp widen!(as, []), do: as

  defp common!(size, size, _axis), do: size
  defp common!(1, size, _axis), do: size
  defp common!(size, 1, _axis), do: size
  defp common!(a, b, axis), do: fail!(@fun, "got sizes #{a} and #{b} for #{axis}")

  defp implied(inputs) do
    once =
      inputs
      |> Enum.flat_map(fn {head, _, tail} -> head ++ tail end)
      |> Enum.frequencies()
      |> Enum.filter(&match?({_, 1}, &1))
      |> Enum.map(&elem(&1, 0))
      |> Enum.sort()

    if Enum.any?(inputs, &match?({_, :ellipsis, _}, &1)),
      do: {[], :ellipsis, once},
      else: {once, nil, []}
  end

  defp output!({head, ellipsis, tail} = output, letters, wild, inputs) do
    text = to_text(output)
    names = head ++ tail

    if Enum.uniq(names) != names,
      do: fail!(@fun, "takes each letter once in the result, got: \"#{text}\"")

    for letter <- names, not is_map_key(letters, letter) do
      fail!(@fun, "got \"#{<<letter>>}\" in the result but in no operand")
    end

    if ellipsis && not Enum.any?(inputs, &match?({_, :ellipsis, _}, &1)),
      do: fail!(@fun, "got an ellipsis in the result but in no operand")

    if ellipsis == nil and wild != [],
      do: fail!(@fun, "needs \"...\" in the result, where the axes without letters go")

    size = Enum.product(Enum.map(names, &letters[&1]) ++ wild)

    if size > @max_elements,
      do: fail!(@fun, "would give #{size} elements, more than #{@max_elements}")
  end

  defp to_text({head, ellipsis, tail}),
    do: List.to_string(head) <> if(ellipsis, do: "...", else: "") <> List.to_string(tail)
end
