defmodule Emily.Fast.NumPyTest do
  # The kernels, and the forms composed of Nx functions, against NumPy's numbers.
  use Emily.FastCase, async: true

  @kernels [
    :rms_norm,
    :layer_norm,
    :rope,
    :rope_with_freqs,
    :scaled_dot_product_attention,
    :scaled_dot_product_attention_with_mask
  ]

  for backend <- Emily.FastCase.backends(), type <- Emily.FastCase.types() do
    describe "#{inspect(backend)}, #{Nx.Type.to_string(type)}" do
      setup do
        Nx.default_backend(unquote(backend))
        :ok
      end

      for %{name: name} <- Emily.FastCase.cases(@kernels) do
        test name do
          [numpy] = Enum.filter(cases(@kernels), &(&1.name == unquote(name)))
          {:f, shape, _} = numpy.out
          {tensors, run} = call(numpy, unquote(type), unquote(backend))

          jitted = Nx.Defn.jit(fn tensors -> run.(Tuple.to_list(tensors)) end)

          for result <- [run.(tensors), jitted.(List.to_tuple(tensors))] do
            assert result.shape == shape
            assert result.type == unquote(Macro.escape(type))
            assert_on(unquote(backend), result)
            assert_near(result, numpy.out, tolerance(result.type))
          end
        end
      end
    end
  end
end
