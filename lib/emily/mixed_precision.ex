defmodule Emily.MixedPrecision do
  @moduledoc """
  Training in floats of 16 bits, with parameters and their updates in 32.

  The forward pass computes with a cast of the parameters; gradients are cast back before the optimiser sees them. Small gradients
  of f16 would be rounded to zero, so that the loss is multiplied by a scale first, and the gradients divided by it
  afterwards. A step whose gradients overflow is left out, and the scale halved. bf16 has the range of f32 and needs no scale.

      alias Emily.MixedPrecision

      scaler = MixedPrecision.loss_scale(scale: 1024.0)

      step = fn params, batch, scaler ->
        Nx.Defn.grad(params, fn params ->
          params |> MixedPrecision.cast_params(:f16) |> loss(batch) |> MixedPrecision.scale_loss(scaler)
        end)
      end

      grads = Nx.Defn.jit(step, compiler: Emily.Compiler).(params, batch, scaler)

      {grads, overflow?} = grads |> MixedPrecision.accumulate_grad(:f32) |> MixedPrecision.unscale(scaler)
      params = if overflow?, do: params, else: update(params, grads)
      scaler = MixedPrecision.update(scaler, overflow?)

  A tree is whatever holds tensors: a tensor, a map, a tuple, a list, a container of Nx, among them
  `Axon.ModelState`. Types are written as `{:bf, 16}` or `:bf16`.
  """

  alias Emily.MixedPrecision.LossScaler
  alias Emily.Tree
  alias Nx.Tensor, as: T

  @typedoc "Whatever holds tensors."
  @type tree :: term

  @typedoc "A type of floats."
  @type float_type :: Nx.Type.t() | Nx.Type.short_t()

  @doc """
  The tree with its floats cast to a type of floats. Integers and complex numbers stay as they are.

  Also within `defn`, where the gradient passes through it.

      iex> params = %{"dense" => %{"kernel" => Nx.tensor([1.5]), "steps" => Nx.tensor(3)}}
      iex> %{"dense" => dense} = Emily.MixedPrecision.cast_params(params, {:bf, 16})
      iex> {Nx.type(dense["kernel"]), Nx.type(dense["steps"])}
      {{:bf, 16}, {:s, 32}}

  Raises an `ArgumentError` for a type that is none of floats.
  """
  @spec cast_params(tree, float_type) :: tree
  def cast_params(tree, type), do: cast(tree, type, "cast_params/2")

  @doc """
  Gradients cast to a type that has the digits to add them up in, mostly f32. Integers and complex numbers stay as they are.

      iex> grads = {Nx.tensor([1.5], type: :f16), [Nx.tensor(2)]}
      iex> {kernel, [steps]} = Emily.MixedPrecision.accumulate_grad(grads, {:f, 32})
      iex> {Nx.type(kernel), Nx.type(steps)}
      {{:f, 32}, {:s, 32}}

  Raises an `ArgumentError` for a type that is none of floats.
  """
  @spec accumulate_grad(tree, float_type) :: tree
  def accumulate_grad(tree, type), do: cast(tree, type, "accumulate_grad/2")

  defp cast(tree, type, function) do
    type = Nx.Type.normalize!(type)

    if not real?(type) do
      raise ArgumentError,
            "Emily.MixedPrecision.#{function} casts to types of floats, got: #{inspect(type)}"
    end

    floats(tree, &Nx.as_type(&1, type))
  end

  defp floats(tree, fun), do: Tree.map(tree, &if(real?(&1.type), do: fun.(&1), else: &1))

  defp real?(type), do: Nx.Type.float?(type) and not Nx.Type.complex?(type)

  @doc """
  A scaler with the options of `Emily.MixedPrecision.LossScaler.new/1`.

      iex> Emily.MixedPrecision.loss_scale(scale: 256.0).scale
      256.0
  """
  @spec loss_scale(keyword) :: LossScaler.t()
  def loss_scale(opts \\ []), do: LossScaler.new(opts)

  @doc """
  The loss times the scale, in the loss's type. Also within `defn`.

      iex> scaler = Emily.MixedPrecision.loss_scale(scale: 8.0)
      iex> Emily.MixedPrecision.scale_loss(Nx.tensor(0.5), scaler) |> Nx.to_number()
      4.0
  """
  @spec scale_loss(Nx.Tensor.t() | number, LossScaler.t()) :: Nx.Tensor.t()
  def scale_loss(loss, %LossScaler{scale: scale}) do
    loss = Nx.to_tensor(loss)
    # A scale that is a tensor may be of a wider type.
    if real?(loss.type),
      do: loss |> Nx.multiply(scale) |> Nx.as_type(loss.type),
      else: Nx.multiply(loss, scale)
  end

  @doc """
  The gradients divided by the scale, in their types, and whether there is a NaN or an infinity among them.

  Cast gradients of f16 with `accumulate_grad/2` first: divided, small ones become zero. Reads whether they are finite, so that it
  computes them.

      iex> scaler = Emily.MixedPrecision.loss_scale(scale: 8.0)
      iex> {%{w: w}, overflow?} = Emily.MixedPrecision.unscale(%{w: Nx.tensor([4.0])}, scaler)
      iex> {Nx.to_list(w), overflow?}
      {[0.5], false}
  """
  @spec unscale(tree, LossScaler.t()) :: {tree, boolean}
  def unscale(grads, %LossScaler{scale: scale}) do
    overflow? = has_overflow?(grads)
    {floats(grads, &(&1 |> Nx.divide(scale) |> Nx.as_type(&1.type))), overflow?}
  end

  @doc """
  The scaler after a step. On overflow its scale is multiplied by the backoff factor, not below `:min_scale`, and it counts
  anew; after `:growth_interval` good steps the scale is multiplied by the growth factor. Its scale and counter are numbers, also where a
  compiled step has made tensors of them, which are read then.

      iex> scaler = Emily.MixedPrecision.loss_scale(scale: 8.0, growth_interval: 2)
      iex> Emily.MixedPrecision.update(scaler, true).scale
      4.0
      iex> scaler |> Emily.MixedPrecision.update(false) |> Emily.MixedPrecision.update(false) |> Map.take([:scale, :counter])
      %{scale: 16.0, counter: 0}
  """
  @spec update(LossScaler.t(), boolean) :: LossScaler.t()
  def update(%LossScaler{} = scaler, overflow?) when is_boolean(overflow?) do
    # A compiled step gives its scaler back with tensors.
    %{scaler | scale: number(scaler.scale), counter: number(scaler.counter)}
    |> after_step(overflow?)
  end

  def update(scaler, overflow?) do
    raise ArgumentError,
          "Emily.MixedPrecision.update/2 expects a scaler and a boolean, got: " <>
            "#{inspect(scaler)} and #{inspect(overflow?)}"
  end

  defp after_step(scaler, true),
    do: %{scaler | scale: max(scaler.scale * scaler.backoff_factor, scaler.min_scale), counter: 0}

  defp after_step(%{counter: counter, growth_interval: interval} = scaler, false)
       when counter + 1 >= interval,
       do: %{scaler | scale: scaler.scale * scaler.growth_factor, counter: 0}

  defp after_step(scaler, false), do: %{scaler | counter: scaler.counter + 1}

  defp number(%T{} = tensor), do: Nx.to_number(tensor)
  defp number(number), do: number

  @doc """
  Whether there is a NaN or an infinity among the floats and complex numbers of a tree.

  Reads one number, for which the tree is computed. Raises an `ArgumentError` within `defn`, where there are no numbers yet.

      iex> Emily.MixedPrecision.has_overflow?(%{a: Nx.tensor([1.0, :infinity]), b: Nx.tensor(1)})
      true
      iex> Emily.MixedPrecision.has_overflow?({Nx.tensor(1.0), Nx.tensor(1)})
      false
  """
  @spec has_overflow?(tree) :: boolean
  def has_overflow?(tree) do
    tensors = for %T{type: type} = tensor <- Tree.tensors(tree), Nx.Type.float?(type), do: tensor

    if Enum.any?(tensors, &is_struct(&1.data, Nx.Defn.Expr)) do
      raise ArgumentError,
            "Emily.MixedPrecision.has_overflow?/1 and unscale/2 answer booleans, which a defn has none of: " <>
              "call them on what it gives"
    end

    case Enum.map(tensors, &overflow/1) do
      [] -> false
      overflows -> overflows |> Enum.reduce(&Nx.logical_or/2) |> Nx.to_number() == 1
    end
  end

  defp overflow(tensor) do
    tensor = Nx.devectorize(tensor)
    Nx.any(Nx.logical_or(Nx.is_nan(tensor), Nx.is_infinity(tensor)))
  end
end
