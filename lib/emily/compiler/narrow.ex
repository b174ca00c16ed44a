defmodule Emily.Compiler.Narrow do
  @moduledoc false
  # Some rows of a product are the product of some rows. A language model gives the logits of all tokens of a prompt, and
  # whoever continues it reads those of the last alone: its head is a fifth of a small model's work.

  alias Emily.Fast.Node
  alias Emily.Quantization.{Matmul, Packing}
  alias Nx.Defn.{Composite, Expr, Tree}
  alias Nx.Tensor, as: T

  # Few numbers are not worth it, and those of small matrices are added up in another way.
  @rows 16
  @numbers 65_536

  @doc """
  What stands in the place of slices of products that nobody else reads, by the slices' ids. The slice takes at most half
  of the product's rows.
  """
  def narrowed(composite) do
    {uses, slices} = Composite.reduce(composite, {%{}, []}, &count/2)

    for slice <- slices, narrow = narrow(slice, uses), into: %{}, do: {slice.data.id, narrow}
  end

  # How many nodes read each, and the slices.
  defp count(%T{data: %Expr{id: id, op: op}} = node, {uses, slices}) do
    case uses do
      %{^id => count} ->
        {Map.put(uses, id, count + 1), slices}

      %{} ->
        slices = if op == :slice, do: [node | slices], else: slices
        further = fn arg, acc -> {arg, count(arg, acc)} end
        {_, acc} = Tree.apply_args(node, :scope, {Map.put(uses, id, 1), slices}, further)
        acc
    end
  end

  defp narrow(%T{data: %Expr{args: [of, starts, lengths, strides]}}, uses) do
    with true <- Enum.all?(starts, &is_integer/1),
         %T{vectorized_axes: []} = product <- alone(of, uses),
         {x, axes, numbers, make} <- product(product),
         taken = Enum.zip([Tuple.to_list(product.shape), starts, lengths, strides]),
         {rows, columns} = Enum.split(taken, length(axes)),
         true <- Enum.all?(columns, &match?({size, 0, size, 1}, &1)),
         count = rows |> Enum.map(&elem(&1, 0)) |> Enum.product(),
         true <- count >= @rows and numbers >= @numbers,
         true <- 2 * (rows |> Enum.map(&elem(&1, 2)) |> Enum.product()) <= count do
      by_axis = axes |> Enum.zip(rows) |> Map.new()

      all =
        for {size, axis} <- Enum.with_index(Tuple.to_list(x.shape)),
            do: by_axis[axis] || {size, 0, size, 1}

      [_, starts, lengths, strides] = all |> Enum.map(&Tuple.to_list/1) |> Enum.zip_with(& &1)
      # As where Nx traces: what makes tensors makes expressions.
      Nx.with_default_backend(Expr, fn ->
        make.(Nx.slice(x, starts, lengths, strides: strides))
      end)
    else
      _ -> nil
    end
  end

  # The node behind notes about it, where each is read once.
  defp alone(%T{data: %Expr{id: id, op: op, args: args}} = node, uses) do
    case {uses, op} do
      {%{^id => 1}, :metadata} -> args |> hd() |> alone(uses)
      {%{^id => 1}, _} -> node
      _ -> nil
    end
  end

  defp alone(_container, _uses), do: nil

  # What has the rows of a product and in which axes, how many numbers they are multiplied with, and how.
  defp product(%T{data: %Expr{op: :dot, args: [x, contracted, [], other, with, []]}}) do
    axes = Enum.to_list(0..(tuple_size(x.shape) - 1)//1) -- contracted
    {x, axes, Nx.size(other), &Nx.dot(&1, contracted, [], other, with, [])}
  end

  defp product(
         %T{data: %Expr{op: :block, args: [%Matmul{} = kernel, [x | weight], _, _]}} = node
       ),
       do: packed(kernel, x, weight, node)

  defp product(%T{data: %Expr{op: :optional, args: [call, _, _]}} = node) do
    with %T{data: %Expr{op: :fast_quantized_matmul, args: args}} <- call do
      {[x | weight], [opts]} = Enum.split(args, -1)
      packed(Node.kernel(:fast_quantized_matmul, opts), x, weight, node)
    end
  end

  defp product(_node), do: nil

  defp packed(kernel, x, [%{shape: {_, _}} | _] = weight, %T{type: type} = node) do
    axes = Enum.to_list(0..(tuple_size(x.shape) - 2)//1)
    columns = Packing.last(node.shape)

    make = fn x ->
      out = Nx.template(Packing.put_last(x.shape, columns), type)
      Node.emit(kernel, [x | weight], out)
    end

    {x, axes, columns * Packing.last(x.shape), make}
  end

  defp packed(_kernel, _x, _weight, _node), do: nil
end
