defmodule Bench.Training do
  @moduledoc false
  # Steps of gradient descent, and a recurrent network, as anchor_models.py has them.

  import Nx.Defn

  alias Bench.Models

  @mlp [{784, 512}, {512}, {512, 512}, {512}, {512, 10}, {10}]
  @cnn [{32, 3, 3, 3}, {64, 32, 3, 3}, {64, 64, 3, 3}, {1024, 10}, {10}]
  @lstm [{128, 512}, {128, 512}, {512}]

  def figures do
    for {key, label, fun, weights, inputs, classes} <- [
          {"MLP", "training step of a 784-512-512-10 MLP, batch 128", &mlp_step/3, @mlp,
           {128, 784}, 10},
          {"CNN", "training step of three convolutions, `{32, 3, 32, 32}`", &cnn_step/3, @cnn,
           {32, 3, 32, 32}, 10},
          {"LSTM", "LSTM of 128 over 100 steps, batch 32", &lstm/3, @lstm, {100, 32, 128}, 1}
        ] do
      make = fn ->
        weights = weights |> Enum.with_index(&weight/2) |> List.to_tuple()
        {x, _} = Nx.Random.uniform(Nx.Random.key(1), shape: inputs, type: :f32)
        classes = Nx.iota({elem(inputs, 0)}) |> Nx.remainder(classes)
        labels = Nx.equal(Nx.new_axis(classes, 1), Nx.iota({1, 10})) |> Nx.as_type(:f32)
        arguments = [weights, x, labels]
        Models.eval(arguments |> List.to_tuple())
        step = Models.compile(fun, arguments)
        fn -> Models.eval(apply(step, arguments)) end
      end

      %{
        key: key,
        label: label,
        make: make,
        unit: {"ms", 1.0e6},
        collect: true,
        engines: [:xla],
        most: 0.8,
        busy: key == "MLP"
      }
    end
  end

  defp weight(shape, at) do
    {tensor, _} = Nx.Random.normal(Nx.Random.key(at), 0.0, 0.05, shape: shape, type: :f32)
    tensor
  end

  defnp mlp_step(weights, x, labels) do
    weights
    |> grad(fn weights -> cross_entropy(mlp(weights, x), labels) end)
    |> descend(weights)
  end

  defnp cnn_step(weights, x, labels) do
    weights
    |> grad(fn weights -> cross_entropy(cnn(weights, x), labels) end)
    |> descend(weights)
  end

  deftransformp descend(gradients, weights) do
    pairs = Enum.zip(Tuple.to_list(weights), Tuple.to_list(gradients))

    List.to_tuple(
      for {weight, gradient} <- pairs, do: Nx.subtract(weight, Nx.multiply(gradient, 0.01))
    )
  end

  defnp mlp({w1, b1, w2, b2, w3, b3}, x) do
    x = Nx.max(Nx.dot(x, w1) + b1, 0)
    Nx.dot(Nx.max(Nx.dot(x, w2) + b2, 0), w3) + b3
  end

  defnp cnn({k1, k2, k3, w, b}, x) do
    x = x |> block(k1) |> block(k2) |> block(k3)
    Nx.dot(Nx.reshape(x, {32, 1024}), w) + b
  end

  defnp block(x, kernel) do
    x
    |> Nx.conv(kernel, padding: :same)
    |> Nx.max(0)
    |> Nx.window_max({1, 1, 2, 2}, strides: [1, 1, 2, 2])
  end

  defnp cross_entropy(logits, labels) do
    shifted = logits - stop_grad(Nx.reduce_max(logits, axes: [-1], keep_axes: true))
    likely = shifted - Nx.log(Nx.sum(Nx.exp(shifted), axes: [-1], keep_axes: true))
    -Nx.mean(Nx.sum(likely * labels, axes: [-1]))
  end

  defnp lstm({inputs, states, bias}, x, _labels) do
    zeros = Nx.broadcast(0.0, {32, 128})

    {_, hidden, memory, _, _, _, _} =
      while {step = 0, hidden = zeros, memory = zeros, x, inputs, states, bias}, step < 100 do
        gates = Nx.dot(x[step], inputs) + Nx.dot(hidden, states) + bias
        enter = Nx.sigmoid(gates[[.., 0..127]])
        forget = Nx.sigmoid(gates[[.., 128..255]])
        candidate = Nx.tanh(gates[[.., 256..383]])
        memory = forget * memory + enter * candidate
        hidden = Nx.sigmoid(gates[[.., 384..511]]) * Nx.tanh(memory)
        {step + 1, hidden, memory, x, inputs, states, bias}
      end

    {hidden, memory}
  end
end
