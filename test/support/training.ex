# Axon takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Axon) do
  defmodule Emily.Training do
    @moduledoc false
    # What the tests of training share: a step, its losses, and real data.

    alias Axon.ModelState
    alias Polaris.{Optimizers, Updates}

    @digits "test/fixtures/digits/digits.npy"
    @license "LICENSE"

    @doc "The parameters that a model begins with."
    def initial(model, x) do
      {init, _predict} = Axon.build(model, mode: :train, seed: 7, compiler: Nx.Defn.Evaluator)
      init.(Nx.to_template(x), ModelState.empty())
    end

    @doc """
    The functions of a step: `step.(state, optimizer, x, y)` answers the loss and what `state` and `optimizer` are after
    it. `loss.(y, prediction)` is a number.
    """
    def step(model, options) do
      {_init, predict} = Axon.build(model, mode: :train, seed: 7)
      {init, update} = options[:optimizer] || Optimizers.adam(learning_rate: 1.0e-2)
      loss = options[:loss] || (&cross_entropy/2)
      cast = options[:cast] || (& &1)

      fun = fn state, optimizer, x, y ->
        parameters = ModelState.trainable_parameters(state)

        objective = fn parameters ->
          %{prediction: prediction, state: kept} =
            predict.(ModelState.update(state, cast.(parameters)), x)

          {loss.(y, prediction), kept}
        end

        {{loss, kept}, gradients} =
          Nx.Defn.value_and_grad(parameters, objective, fn {loss, _kept} -> loss end)

        {updates, optimizer} = update.(gradients, optimizer, parameters)
        parameters = Updates.apply_updates(parameters, updates)
        {loss, ModelState.update(state, parameters, kept), optimizer}
      end

      {init, fun}
    end

    @doc "The loss of each batch, and the last state. Options are those of `step/2` and of `Nx.Defn.jit/2`."
    def train(model, state, batches, options) do
      {own, options} = Keyword.split(options, [:optimizer, :loss, :cast])
      {init, step} = step(model, own)
      step = Nx.Defn.jit(step, options)

      optimizer =
        Nx.Defn.jit_apply(init, [ModelState.trainable_parameters(state)], options)

      {losses, {state, _optimizer}} =
        Enum.map_reduce(batches, {state, optimizer}, fn {x, y}, {state, optimizer} ->
          {loss, state, optimizer} = step.(state, optimizer, x, y)
          {Nx.to_number(loss), {state, optimizer}}
        end)

      {losses, state}
    end

    @doc "The mean cross entropy of probabilities."
    def cross_entropy(y, prediction),
      do: Axon.Losses.categorical_cross_entropy(y, prediction, reduction: :mean)

    @doc "The mean cross entropy of logits with numbers of classes."
    def sparse_cross_entropy(y, logits) do
      Axon.Losses.categorical_cross_entropy(y, logits,
        from_logits: true,
        sparse: true,
        reduction: :mean
      )
    end

    @doc "500 handwritten digits of 8 x 8 pixels from 0 to 1, and their numbers as rows of ten."
    def digits do
      rows = Nx.load_numpy!(File.read!(@digits))
      x = rows[[.., 0..63]] |> Nx.as_type(:f32) |> Nx.divide(16)
      {x, rows[[.., 64..64]] |> Nx.equal(Nx.iota({1, 10})) |> Nx.as_type(:f32)}
    end

    @doc "The batches of a pair, in order, again and again."
    def batches({x, y}, size, count) do
      Enum.zip(
        Nx.to_batched(x, size, leftover: :discard),
        Nx.to_batched(y, size, leftover: :discard)
      )
      |> Stream.cycle()
      |> Enum.take(count)
    end

    @doc "Pieces of the licence as numbers of its characters, each with the characters that follow, and their number."
    def license(length) do
      text = @license |> File.read!() |> String.to_charlist()
      letters = text |> Enum.uniq() |> Enum.sort() |> Enum.with_index() |> Map.new()
      numbers = Nx.tensor(Enum.map(text, &letters[&1]))
      rows = div(Nx.size(numbers) - 1, length)
      x = numbers[0..(rows * length - 1)] |> Nx.reshape({rows, length})
      y = numbers[1..(rows * length)] |> Nx.reshape({rows, length, 1})
      {{x, y}, map_size(letters)}
    end
  end
end
