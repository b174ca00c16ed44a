defmodule Emily.MixedPrecisionTest do
  use Emily.BackendCase, async: true

  alias Emily.MixedPrecision
  alias Emily.MixedPrecision.LossScaler

  doctest Emily.MixedPrecision

  defmodule Layer do
    @derive {Nx.Container, containers: [:kernel], keep: [:name]}
    defstruct [:kernel, :name, :unused]
  end

  @on_emily {Emily.Backend, device: :cpu}

  defp tree do
    %{
      "dense" => %{"kernel" => Nx.tensor([[1.1, -2.0]]), "bias" => Nx.tensor([0.5], type: :f64)},
      list: [Nx.tensor(1), {Nx.tensor([1, 2], type: :u8), Nx.tensor(2.5, type: :bf16)}],
      layer: %Layer{kernel: Nx.tensor([3.0]), name: :first, unused: Nx.tensor(1.0)},
      complex: Nx.tensor(Complex.new(1.0, 2.0)),
      steps: 7,
      rate: 0.1,
      tuple: {}
    }
  end

  describe "casts" do
    test "change floats alone, wherever they are" do
      for {function, name} <- [
            {&MixedPrecision.cast_params/2, "cast_params/2"},
            {&MixedPrecision.accumulate_grad/2, "accumulate_grad/2"}
          ] do
        expected = %{
          "dense" => %{
            "kernel" => Nx.tensor([[1.1, -2.0]]) |> Nx.as_type(:f16),
            "bias" => Nx.tensor([0.5], type: :f16)
          },
          list: [Nx.tensor(1), {Nx.tensor([1, 2], type: :u8), Nx.tensor(2.5, type: :f16)}],
          # What is no part of the container is left out by Nx.
          layer: %Layer{kernel: Nx.tensor([3.0], type: :f16), name: :first, unused: nil},
          complex: Nx.tensor(Complex.new(1.0, 2.0)),
          steps: 7,
          rate: 0.1,
          tuple: {}
        }

        assert function.(tree(), {:f, 16}) == expected
        assert function.(tree(), :f16) == expected

        for type <- [{:s, 32}, :u8, {:c, 64}],
            do: assert_raise(ArgumentError, ~r"#{name} casts", fn -> function.(tree(), type) end)

        assert_raise ArgumentError, ~r/:half/, fn -> function.(tree(), :half) end
      end
    end

    test "are rounded as Nx.as_type rounds, on either backend" do
      x = Nx.tensor([257.9, 1.0e-8, 7.0e4])

      for tensor <- [x, Nx.backend_copy(x, @on_emily)] do
        assert MixedPrecision.cast_params(tensor, :f16) |> Nx.backend_copy() ==
                 tensor |> Nx.as_type(:f16) |> Nx.backend_copy()
      end
    end

    test "hand the gradient through, in the type of the parameters" do
      loss = fn params ->
        %{w: w} = MixedPrecision.cast_params(params, :bf16)
        Nx.sum(Nx.multiply(w, w))
      end

      params = %{w: Nx.tensor([1.5, -3.0], backend: @on_emily)}

      for compiler <- [Emily.Compiler, Nx.Defn.Evaluator] do
        %{w: grad} = Nx.Defn.jit_apply(&Nx.Defn.grad(&1, loss), [params], compiler: compiler)
        assert {grad.type, Nx.to_list(grad)} == {{:f, 32}, [3.0, -6.0]}
      end
    end
  end

  if Code.ensure_loaded?(Axon.ModelState) do
    test "Axon's states are trees" do
      data = %{"dense" => %{"kernel" => Nx.tensor([[1.0, 2.0]]), "seen" => Nx.tensor(1)}}
      state = Axon.ModelState.new(data)
      cast = MixedPrecision.cast_params(state, {:bf, 16})

      assert cast == %{
               state
               | data: %{
                   "dense" => %{
                     "kernel" => Nx.tensor([[1.0, 2.0]], type: :bf16),
                     "seen" => Nx.tensor(1)
                   }
                 }
             }

      refute MixedPrecision.has_overflow?(cast)
      assert {_, false} = MixedPrecision.unscale(cast, MixedPrecision.loss_scale())
    end
  end

  describe "overflow" do
    test "is a NaN or an infinity anywhere" do
      for bad <- [:nan, :infinity, :neg_infinity],
          type <- [:f16, :bf16, :f32, :f64],
          backend <- [Nx.BinaryBackend, @on_emily] do
        good = Nx.tensor([1.0, 2.0], type: type, backend: backend)
        overflown = Nx.tensor([1.0, bad], type: type, backend: backend)
        refute MixedPrecision.has_overflow?({good, [good]})
        assert MixedPrecision.has_overflow?({good, [%{a: overflown}]})
        assert MixedPrecision.has_overflow?({overflown, [good]})
      end

      assert MixedPrecision.has_overflow?(Nx.tensor(Complex.new(0.0, :infinity)))
      refute MixedPrecision.has_overflow?(%{a: Nx.tensor([1]), b: 1, c: [], d: {}})

      vectors = Nx.tensor([[1.0, :nan], [1.0, 2.0]]) |> Nx.vectorize(:rows)
      assert MixedPrecision.has_overflow?(vectors)
    end

    test "is no question for a defn" do
      for fun <- [
            fn x -> if MixedPrecision.has_overflow?(x), do: x, else: x end,
            fn x -> x |> MixedPrecision.unscale(LossScaler.new()) |> elem(0) end
          ] do
        assert_raise ArgumentError, ~r"has_overflow\?/1 and unscale/2", fn ->
          Nx.Defn.jit_apply(fun, [Nx.tensor(1.0)])
        end
      end
    end
  end

  describe "scaling" do
    test "and unscaling give back what was there" do
      scaler = MixedPrecision.loss_scale(scale: 1024.0)
      grads = {Nx.tensor([0.25, -3.0]), [Nx.tensor(7), Nx.tensor(0.5, type: :bf16)]}

      scaled =
        {Nx.tensor([256.0, -3072.0]), [Nx.tensor(7), Nx.tensor(512.0, type: :bf16)]}

      assert MixedPrecision.unscale(scaled, scaler) == {grads, false}
      assert {_, true} = MixedPrecision.unscale({Nx.tensor(1.0), Nx.tensor(:nan)}, scaler)
    end

    test "keeps the loss's type, for numbers and tensors as scales" do
      for scale <- [8.0, 8, Nx.tensor(8.0)], type <- [:f16, :bf16, :f32, :f64] do
        loss = Nx.tensor(1.5, type: type)
        scaled = MixedPrecision.scale_loss(loss, %LossScaler{scale: scale})
        assert scaled == Nx.tensor(12.0, type: type)
      end

      assert MixedPrecision.scale_loss(0.5, %LossScaler{scale: 4.0}) |> Nx.to_number() == 2.0
    end

    test "within a compiled step takes the scaler as an argument" do
      fun = fn w, scaler ->
        Nx.Defn.grad(w, &MixedPrecision.scale_loss(Nx.sum(Nx.multiply(&1, &1)), scaler))
      end

      step = Nx.Defn.jit(fun, compiler: Emily.Compiler)
      w = Nx.tensor([1.0, -2.0])

      for scale <- [2.0, 1024.0] do
        scaler = MixedPrecision.loss_scale(scale: scale)
        grads = step.(w, scaler)
        assert Nx.to_list(grads) == [2.0 * scale, -4.0 * scale]
        {grads, false} = MixedPrecision.unscale(grads, scaler)
        assert Nx.to_list(grads) == [2.0, -4.0]
      end
    end

    test "keeps small gradients of f16, once they are cast" do
      # Less than half of the least number that f16 has.
      small = 2.0e-8
      assert small |> Nx.tensor(type: :f16) |> Nx.to_number() == 0.0
      scaler = MixedPrecision.loss_scale(scale: 4096.0)
      grad = Nx.tensor(small * 4096, type: :f16)

      {kept, false} =
        grad |> MixedPrecision.accumulate_grad(:f32) |> MixedPrecision.unscale(scaler)

      assert_in_delta Nx.to_number(kept), small, 1.0e-11
      assert {lost, false} = MixedPrecision.unscale(grad, scaler)
      assert lost == Nx.tensor(0.0, type: :f16)
    end
  end

  describe "an update" do
    test "backs off on overflow, down to the least, and counts anew" do
      scaler = %{MixedPrecision.loss_scale(scale: 4.0, min_scale: 1.5) | counter: 9}
      halved = MixedPrecision.update(scaler, true)
      assert {halved.scale, halved.counter} == {2.0, 0}
      assert MixedPrecision.update(halved, true).scale == 1.5
      assert MixedPrecision.update(%{halved | scale: 1.5}, true).scale == 1.5
    end

    test "takes a scaler that a compiled step gives back" do
      returned = fn scaler -> Nx.Defn.jit_apply(& &1, [scaler], compiler: Emily.Compiler) end

      for counter <- [0, 1], overflow? <- [true, false] do
        scaler = %{MixedPrecision.loss_scale(growth_interval: 2) | counter: counter}
        assert %LossScaler{scale: %Nx.Tensor{}, counter: %Nx.Tensor{}} = given = returned.(scaler)

        assert MixedPrecision.update(given, overflow?) ==
                 MixedPrecision.update(scaler, overflow?)
      end
    end

    test "takes a scaler and a boolean" do
      for {scaler, overflow?} <- [{LossScaler.new(), Nx.tensor(1)}, {1024.0, true}] do
        assert_raise ArgumentError, ~r"update/2 expects a scaler and a boolean", fn ->
          MixedPrecision.update(scaler, overflow?)
        end
      end
    end

    test "grows after so many good steps in a row" do
      scaler = MixedPrecision.loss_scale(scale: 8.0, growth_interval: 3, growth_factor: 4.0)

      {steps, _} =
        Enum.map_reduce([false, false, true, false, false, false, false], scaler, fn over,
                                                                                     scaler ->
          scaler = MixedPrecision.update(scaler, over)
          {{scaler.scale, scaler.counter}, scaler}
        end)

      assert steps == [{8.0, 1}, {8.0, 2}, {4.0, 0}, {4.0, 1}, {4.0, 2}, {16.0, 0}, {16.0, 1}]
    end
  end

  test "bf16 learns what f32 learns" do
    x = Nx.iota({64, 1}, type: :f32) |> Nx.divide(32) |> Nx.subtract(1)
    y = Nx.add(Nx.multiply(x, 2), 0.5)

    learned = fn cast ->
      loss = fn params ->
        %{w: w, b: b} = cast.(params)
        input = Nx.as_type(x, w.type)
        error = Nx.subtract(Nx.add(Nx.dot(input, w), b), y)
        Nx.mean(Nx.multiply(error, error))
      end

      step =
        Nx.Defn.jit(
          fn params ->
            {loss, grads} = Nx.Defn.value_and_grad(params, loss)
            grads = MixedPrecision.accumulate_grad(grads, :f32)

            {loss,
             Map.new(params, fn {k, v} -> {k, Nx.subtract(v, Nx.multiply(grads[k], 0.3))} end)}
          end,
          compiler: Emily.Compiler
        )

      start = %{w: Nx.broadcast(0.0, {1, 1}), b: Nx.broadcast(0.0, {1})}
      Enum.reduce(1..60, start, fn _, params -> params |> step.() |> elem(1) end)
    end

    full = learned.(& &1)
    half = learned.(&MixedPrecision.cast_params(&1, :bf16))

    assert_in_delta full.w |> Nx.reshape({}) |> Nx.to_number(), 2.0, 0.02

    for key <- [:w, :b],
        {a, b} <- Enum.zip(Nx.to_flat_list(full[key]), Nx.to_flat_list(half[key])) do
      assert half[key].type == {:f, 32}
      assert_in_delta a, b, 0.02
    end
  end
end
