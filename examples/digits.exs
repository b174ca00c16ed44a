# Learns handwritten digits, in f32 or with products of bf16, and reads those that it has not seen.
#
#     mix run examples/digits.exs
#     mix run examples/digits.exs --bf16 --epochs 10
#
# The digits are 500 of scikit-learn's, 8 x 8 points each, from the folder of the tests. Each step is one program, which is
# given the last step's state and writes the next in its place.

defmodule Digits do
  @digits Path.expand("../test/fixtures/digits/digits.npy", __DIR__)
  @learned 400
  @batch 50

  # Of the arguments of a step of Axon.Loop's - data, iteration, state, metrics - the state.
  @state 2

  def run(argv) do
    {options, _} = OptionParser.parse!(argv, strict: [bf16: :boolean, epochs: :integer])
    Nx.global_default_backend(Emily.Backend)
    {images, labels} = digits()

    batches =
      Enum.zip(
        Nx.to_batched(images[0..(@learned - 1)], @batch),
        Nx.to_batched(one_hot(labels[0..(@learned - 1)]), @batch)
      )

    model = model(options[:bf16] || false)
    loss = &Axon.Losses.categorical_cross_entropy(&1, &2, from_logits: true, reduction: :mean)
    options = [epochs: options[:epochs] || 20, compiler: Emily.Compiler, donate: [@state]]
    Emily.Memory.reset_peak()

    state =
      model
      |> Axon.Loop.trainer(loss, Polaris.Optimizers.adam(learning_rate: 3.0e-3), log: 0, seed: 1)
      |> Axon.Loop.handle_event(:epoch_completed, &say/1, every: 5)
      |> Axon.Loop.run(batches, Axon.ModelState.empty(), options)

    {_init, predict} = Axon.build(model, compiler: Emily.Compiler)
    answers = predict.(state, images[@learned..-1//1]) |> Nx.argmax(axis: 1)
    right = answers |> Nx.equal(labels[@learned..-1//1]) |> Nx.mean() |> Nx.to_number()
    peak = Emily.Memory.stats().peak / 1_048_576

    IO.puts(
      "reads #{round(100 * right)} of 100 that it has not seen; at most #{Float.round(peak, 1)} MiB"
    )
  end

  # The numbers, and each image as a square of one channel.
  defp digits do
    rows = Nx.load_numpy!(File.read!(@digits))
    {images, labels} = {rows[[.., 0..63]], rows[[.., 64]]}
    {images |> Nx.divide(16) |> Nx.as_type(:f32) |> Nx.reshape({:auto, 8, 8, 1}), labels}
  end

  defp one_hot(labels), do: labels |> Nx.new_axis(1) |> Nx.equal(Nx.iota({1, 10}))

  defp model(bf16?) do
    model =
      Axon.input("image", shape: {nil, 8, 8, 1})
      |> Axon.conv(16, kernel_size: 3, padding: :same, activation: :relu)
      |> Axon.max_pool(kernel_size: 2)
      |> Axon.conv(32, kernel_size: 3, padding: :same, activation: :relu)
      |> Axon.flatten()
      |> Axon.dense(10)

    if bf16?, do: Axon.MixedPrecision.apply_policy(model, policy()), else: model
  end

  defp policy do
    Axon.MixedPrecision.create_policy(params: {:f, 32}, compute: {:bf, 16}, output: {:f, 32})
  end

  defp say(%{epoch: epoch, step_state: %{loss: loss}} = state) do
    IO.puts("epoch #{epoch + 1}: loss #{Float.round(Nx.to_number(loss), 4)}")
    {:continue, state}
  end
end

Digits.run(System.argv())
