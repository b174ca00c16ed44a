defmodule Emily.Fast.Einsum.Equation do
  @moduledoc false
  # What an equation in NumPy's notation means for operands of some shapes.

  @letters Enum.concat(?a..?z, ?A..?Z)
  @max_elements 2_147_483_647

  @doc """
  The groups of letters and that of the result, and the size of each letter.

  Ellipses are written as letters that the equation does not use, and an implied result is written
  out. Throws `{:refused, why}` where the equation is malformed or does not fit the shapes.
  """
  def parse!(subscripts, shapes) do
    unless is_binary(subscripts) and String.valid?(subscripts),
      do: refuse!("expects the subscripts as a string, got: #{inspect(subscripts)}")

    {inputs, output} = parts!(subscripts)

    if length(inputs) != length(shapes),
      do: refuse!("got #{length(shapes)} operands for #{length(inputs)} groups")

    widths = Enum.zip_with(inputs, shapes, &width!/2)
    wild = wild!(inputs, Enum.max(widths))

    groups =
      Enum.zip_with(inputs, widths, fn group, width -> spell(group, Enum.take(wild, -width)) end)

    sizes = groups |> Enum.zip(shapes) |> Enum.reduce(%{}, &measure!(&1, &2, wild))
    {groups, result!(output, groups, wild, sizes), sizes}
  end

  @doc "The equation of groups of letters and their result."
  def text(groups, output), do: Enum.join(groups, ",") <> "->" <> List.to_string(output)

  @doc "The groups of letters and their result, of an equation that `text/2` wrote."
  def groups(text) do
    [inputs, output] = String.split(text, "->")
    {inputs |> String.split(",") |> Enum.map(&to_charlist/1), to_charlist(output)}
  end

  defp parts!(subscripts) do
    case subscripts |> String.replace(" ", "") |> String.split("->") do
      [inputs] -> {groups!(inputs), nil}
      [inputs, output] -> {groups!(inputs), group!(output)}
      _ -> refuse!("expects at most one \"->\"")
    end
  end

  defp groups!(text), do: for(group <- String.split(text, ","), do: group!(group))

  # A group as {letters before the ellipsis, whether there is one, letters after it}.
  defp group!(text) do
    case String.split(text, "...") do
      [letters] -> {letters!(letters), false, []}
      [head, tail] -> {letters!(head), true, letters!(tail)}
      _ -> refuse!("expects at most one ellipsis a group")
    end
  end

  defp letters!(text) do
    for char <- String.to_charlist(text) do
      if char in @letters,
        do: char,
        else:
          refuse!("expects letters, commas, \"...\" and \"->\", got: #{inspect(<<char::utf8>>)}")
    end
  end

  # How many axes of the shape the ellipsis stands for.
  defp width!({head, ellipsis?, tail} = group, shape) do
    width = tuple_size(shape) - length(head) - length(tail)

    if width < 0 or (not ellipsis? and width > 0) do
      text = to_string(spell(group, if(ellipsis?, do: ~c"...", else: [])))
      refuse!("got an operand of shape #{inspect(shape)} for the group \"#{text}\"")
    end

    width
  end

  defp wild!(inputs, width) do
    free = @letters -- Enum.flat_map(inputs, fn {head, _, tail} -> head ++ tail end)

    if width > length(free) do
      refuse!(
        "takes up to #{length(@letters)} different axes, those of the ellipsis included, " <>
          "got #{length(@letters) - length(free) + width}"
      )
    end

    Enum.take(free, width)
  end

  defp spell({head, _ellipsis?, tail}, wild), do: head ++ wild ++ tail

  # Adds an operand's sizes to those of the letters.
  defp measure!({group, shape}, sizes, wild) do
    own = group |> Enum.zip(Tuple.to_list(shape)) |> Enum.reduce(%{}, &diagonal!(&1, &2, shape))

    Map.merge(sizes, own, fn
      _letter, size, size ->
        size

      _letter, 1, size ->
        size

      _letter, size, 1 ->
        size

      letter, a, b ->
        axis = if letter in wild, do: "an axis of the ellipsis", else: "axis \"#{<<letter>>}\""
        refuse!("got sizes #{a} and #{b} for #{axis}")
    end)
  end

  defp diagonal!({letter, size}, own, shape) do
    if Map.get(own, letter, size) != size do
      refuse!(
        "takes the diagonal of equal axes only, got sizes #{own[letter]} and #{size} for " <>
          "\"#{<<letter>>}\" in shape #{inspect(shape)}"
      )
    end

    Map.put(own, letter, size)
  end

  defp result!(output, groups, wild, sizes) do
    output = output || implied(groups, wild)
    letters = spell(output, wild)

    if Enum.uniq(letters) != letters,
      do: refuse!("takes each letter once in the result, got: \"#{letters}\"")

    for letter <- letters,
        not is_map_key(sizes, letter),
        do: refuse!("got \"#{<<letter>>}\" in the result but in no operand")

    if wild != [] and not elem(output, 1),
      do: refuse!("needs \"...\" in the result, where the axes without letters go")

    size = letters |> Enum.map(&sizes[&1]) |> Enum.product()

    if size > @max_elements,
      do: refuse!("would give #{size} elements, more than #{@max_elements}")

    letters
  end

  # The letters that stand once.
  defp implied(groups, wild) do
    once = for {letter, 1} <- groups |> Enum.concat() |> Enum.frequencies(), do: letter
    {[], true, Enum.sort(once -- wild)}
  end

  @spec refuse!(String.t()) :: no_return
  defp refuse!(why), do: throw({:refused, why})
end
