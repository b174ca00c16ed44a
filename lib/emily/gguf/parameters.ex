defmodule Emily.GGUF.Parameters do
  @moduledoc false
  # A model's parameters: which tensors they are, of which shape, and how they lie in a file.
  #
  # Layouts:
  #
  #   * `:same` - as it is
  #   * `:dense` - rows are outputs, where Axon has them as columns
  #   * `{:rotary, heads}` - as dense; and in each head, rows that turn together are neighbours, where Bumblebee has the
  #     first of all pairs before the second
  #   * `{:part, from, count}` - as dense, so many rows of a tensor
  #   * `:less_one` - the file has one more, which the layer adds

  import Emily.GGUF.Metadata

  require Logger

  alias Emily.GGUF
  alias Emily.GGUF.{Blocks, Spec}
  alias Emily.QuantizedWeight

  @doc "The parameters as maps of `:layer`, `:parameter`, `:tensor`, `:shape`, `:layout` and the `:fields` of the shape."
  def list(gguf, row, sizes) do
    blocks =
      for n <- 0..(sizes.blocks - 1), {layer, parameter, tensor, shape, layout} <- row.block do
        {"#{row.blocks}.#{n}.#{layer}", parameter, "blk.#{n}.#{tensor}", shape, layout}
      end

    for {layer, parameter, tensor, shape, layout} <- row.parameters ++ blocks do
      %{
        layer: layer,
        parameter: parameter,
        tensor: tensor(gguf, tensor),
        shape: shape |> Enum.map(&Map.fetch!(sizes, &1)) |> List.to_tuple(),
        layout: layout(layout, sizes),
        fields: Spec.fields(row, shape)
      }
    end
  end

  # Tied to the embedding, the output has no tensor of its own.
  defp tensor(gguf, :output) do
    if is_map_key(gguf.tensors, "output.weight"), do: "output.weight", else: "token_embd.weight"
  end

  defp tensor(_gguf, name), do: name

  defp layout({:rotary, heads}, sizes), do: {:rotary, Map.fetch!(sizes, heads)}

  defp layout({:part, before, size}, sizes),
    do: {:part, before |> Enum.map(&Map.fetch!(sizes, &1)) |> Enum.sum(), Map.fetch!(sizes, size)}

  defp layout(layout, _sizes), do: layout

  @doc "Every tensor that the model needs is there, of its shape and of a type that can be read, and no other."
  def check(gguf, row, parameters) do
    wanted = Map.new(parameters, &{&1.tensor, &1})
    missing = Map.keys(wanted) -- Map.keys(gguf.tensors)
    if missing != [], do: fail(gguf, "there is no tensor #{few(missing)}")
    more = (Map.keys(gguf.tensors) -- Map.keys(wanted)) -- row.optional
    if more != [], do: fail(gguf, "the model has no place for the tensors #{few(more)}")

    for {name, %{shape: expected, fields: fields}} <- wanted,
        %{type: type, shape: shape} = gguf.tensors[name] do
      if shape != expected do
        fail(
          gguf,
          "the tensor #{inspect(name)} has the shape #{inspect(shape)}, expected #{inspect(expected)} by " <>
            Enum.join(fields, ", ")
        )
      end

      if type not in Blocks.floats() do
        fail(
          gguf,
          "the tensor #{inspect(name)} is of type #{type}; a model takes #{Enum.join(Blocks.floats(), ", ")}"
        )
      end
    end
  end

  defp few(names) do
    shown = names |> Enum.take(5) |> Enum.join(", ")
    if length(names) > 5, do: "#{shown} and #{length(names) - 5} more", else: shown
  end

  @doc "Says in the log which types of a file the device has no product with."
  def notice(gguf, parameters, opts) do
    types =
      for %{tensor: name, shape: {_, _}} <- parameters,
          type = gguf.tensors[name].type,
          type in Blocks.quantized() and packed(type, opts[:device]) == nil,
          uniq: true,
          do: type

    if types != [] and not opts[:dequantize] do
      Logger.notice(
        "Emily.GGUF: #{gguf.path}: a GPU has no product with #{Enum.join(types, ", ")}: these " <>
          "tensors become dense"
      )
    end
  end

  @doc "Reads each tensor once, as layers of parameters. A tensor that two layers have alike is shared by them."
  def read(gguf, parameters, opts) do
    total = Enum.sum(for {_, tensor} <- gguf.tensors, do: tensor.length)

    {data, _} =
      parameters
      |> Enum.group_by(& &1.tensor)
      |> Enum.reduce({%{}, 0}, fn {name, uses}, {data, done} ->
        layouts = uses |> Enum.map(& &1.layout) |> Enum.uniq()
        tensor = parameter(gguf, name, if(:less_one in layouts, do: wide(opts), else: opts))
        arranged = Map.new(layouts, &{&1, arrange(tensor, &1, opts)})

        data =
          for %{layer: layer, parameter: parameter, layout: layout} <- uses, reduce: data do
            data ->
              Map.update(
                data,
                layer,
                %{parameter => arranged[layout]},
                &Map.put(&1, parameter, arranged[layout])
              )
          end

        done = done + gguf.tensors[name].length
        opts[:progress].(done, total)
        {data, done}
      end)

    data
  end

  # What is quantized in the file stays so, as products and embeddings take it.
  defp parameter(gguf, name, opts) do
    %{type: type, shape: shape} = gguf.tensors[name]

    packed =
      if not opts[:dequantize] and type in Blocks.quantized() and tuple_size(shape) == 2,
        do: packed(type, opts[:device])

    if packed,
      do: GGUF.packed(gguf, name, packed ++ Keyword.take(opts, [:device])),
      else: GGUF.tensor(gguf, name, tensor_options(opts))
  end

  # How a device multiplies with a type.
  defp packed(type, device) do
    cond do
      (device || Emily.Native.default_device()) == :cpu -> []
      # The scales' own type in the file.
      type in Blocks.affine() -> [mode: "affine", type: :f16]
      true -> nil
    end
  end

  defp tensor_options(opts), do: [type: type(opts)] ++ Keyword.take(opts, [:device])
  defp type(opts), do: opts[:type] || :f32

  # What is subtracted from is not rounded before.
  defp wide(opts), do: Keyword.put(opts, :type, :f32)

  defp arrange(tensor, :same, _opts), do: tensor

  defp arrange(tensor, :less_one, opts),
    do: tensor |> Nx.subtract(1) |> Nx.as_type(type(opts)) |> evaluate()

  defp arrange(tensor, :dense, _opts), do: turned(tensor)

  defp arrange(tensor, {:rotary, heads}, _opts),
    do: tensor |> rows(&pairs(&1, heads)) |> turned()

  defp arrange(tensor, {:part, from, count}, _opts),
    do: tensor |> rows(&Nx.slice_along_axis(&1, from, count, axis: 0)) |> turned()

  # Packed weights have rows of outputs in a layer too.
  defp turned(%QuantizedWeight{} = weight), do: weight
  defp turned(tensor), do: Nx.transpose(tensor)

  defp rows(%QuantizedWeight{} = weight, fun) do
    # A scalar zero stands where a mode has none.
    fields =
      for name <- [:value, :scales, :biases],
          %{shape: {_, _}} = tensor <- [Map.fetch!(weight, name)],
          do: {name, rows(tensor, fun)}

    struct!(weight, fields)
  end

  defp rows(tensor, fun), do: tensor |> fun.() |> evaluate()

  # Rows that turn together, which are neighbours, become the first of all pairs before the second.
  defp pairs(%{shape: {rows, columns}} = tensor, heads) do
    tensor
    |> Nx.reshape({heads, div(rows, 2 * heads), 2, columns})
    |> Nx.transpose(axes: [0, 2, 1, 3])
    |> Nx.reshape({rows, columns})
  end

  # Else what was read would stay in memory beside what is made of it.
  defp evaluate(tensor) do
    Emily.Native.eval(tensor.data.ref)
    tensor
  end
end
