defmodule Emily.Native.Expression do
  @moduledoc """
  What `Emily.Native.run/2` and the functions of `Emily.Native.Program` take.

  Nested tuples, each the name of an operation followed by its arguments: arrays, expressions, numbers, booleans, types,
  lists of integers. Names and meanings are MLX's.

      iex> [y] = Emily.Native.run([{:sum, {:multiply, {:arange, 0, 4, 1, :s32}, {:full, [], 2, :s32}}, [0], false}])
      iex> Emily.Native.item(y)
      12

  ## Operations

    * one array: `{:exp, x}`, and likewise `abs negative expm1 log log1p log2 log10 sqrt rsqrt
      square sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh erf erfc
      erfinv sigmoid cbrt sign floor ceil round round_away trunc rectify is_positive logical_not bitwise_invert
      isnan isinf isfinite isposinf isneginf real imag conjugate contiguous`. The sign of NaN is NaN; `round_away`
      takes halves away from zero; `rectify` is the greater of a number and zero, -0.0 of those below zero, and
      `is_positive` is true of 0.0 and false of -0.0.
    * `{:chop, x, least}`: what is no larger than `least` becomes zero, of a complex number each part
    * two arrays, promoted and broadcast: `{:add, x, y}`, and likewise `subtract multiply divide
      floor_divide remainder fmod power integer_power maximum minimum arctan2 logaddexp equal
      not_equal greater greater_equal less less_equal logical_and logical_or bitwise_and bitwise_or
      bitwise_xor left_shift right_shift wide_left_shift wide_right_shift matmul`. An integer
      quotient by zero has all bits set, an integer remainder by zero is the dividend. The sign of
      `fmod` is the dividend's. A negative `integer_power` is the integer part of the reciprocal, and
      a wide shift may be by the width or more.
    * types: `{:astype, x, type}`, `{:view, x, type}`, and `{:to_integer, x, type}`, in which NaN is 0,
      an infinity the end of the range, and what is beyond it loses the bits above the width
    * choosing: `{:where, condition, x, y}`, `{:clip, x, low, high}`
    * new arrays: `{:full, shape, number, type}`, `{:arange, start, stop, step, type}`,
      `{:eye, rows, columns, diagonal, type}`; a number may be `:nan`, `:infinity`,
      `:neg_infinity` or `{:complex, re, im}`
    * shapes: `{:reshape, x, shape}`, `{:transpose, x, axes}`, `{:broadcast_to, x, shape}`,
      `{:expand_dims, x, axes}`, `{:squeeze, x, axes}`, `{:flip, x, axes}`,
      `{:slice, x, starts, stops, strides}`, `{:slice_update, x, update, starts, stops, strides}`
      (also `slice_update_add`, `_prod`, `_max`, `_min`),
      `{:slice_dynamic, x, starts, axes, sizes}` and
      `{:slice_update_dynamic, x, update, starts, axes}` (`starts` is an array, clamped),
      `{:concatenate, xs, axis}`, `{:stack, xs, axis}`, `{:pad, x, axes, low, high, value}`,
      `{:as_strided, x, shape, strides, offset}`, `{:tril, x, k}`, `{:triu, x, k}`,
      `{:diagonal, x, offset, axis1, axis2}`, `{:repeat, x, times, axis}`, `{:tile, x, times}`
    * reductions: `{:sum, x, axes, keepdims}`, and likewise `prod max min mean all any logsumexp`;
      `{:softmax, x, axes, precise}`, `{:argmax, x, axis, keepdims}`, `{:argmin, ...}`,
      `{:argmax_nan, x, axis, last}`, which answers the last NaN, or else the first or the last of
      equals, `{:window_argmax, x, axis}`, which answers the last of equals, but a NaN only where it
      comes first, likewise `argmin_nan` and `window_argmin` (these four keep the axis),
      `{:cumsum, x, axis, reverse}`, and likewise `cumprod cummax cummin logcumsumexp`. Whatever adds or
      multiplies floats of 16 bits, here, in `softmax`, `scatter_add`, `scatter_prod` and `einsum`, accumulates
      them in f32 and rounds once
    * sorting: `{:sort, x, axis, descending}`, `{:argsort, x, axis, descending}`, in which NaN is greater than all
      numbers and equals keep their order, and `{:top_k, x, k}`, the places along the last axis of the `k` greatest,
      the greatest first
    * indices, clamped into their axis: `{:take, x, indices, axis}`,
      `{:take_along_axis, x, indices, axis}`, `{:gather, x, [indices], axes, slice_sizes}`,
      `{:scatter, x, [indices], updates, axes}`, and likewise `scatter_add`, `_prod`, `_max`, `_min`
    * linear algebra, on the CPU always and computed at once: `{:cholesky, x, upper}`,
      `{:qr, x}` (two results), `{:svd, x, vectors}` (three, or one), `{:eigh, x, upper}` (two),
      `{:lu, x}` (three), `{:lu_factor, x}` (two), `{:solve, a, b}`,
      `{:solve_triangular, a, b, upper}`, `{:inv, x}`, `{:det, x}`. What `svd` and `eigh` make of a matrix
      with a NaN or an infinity is NaN, as are solutions by a triangle with a NaN on its diagonal. A
      singular matrix raises `Emily.Error` in `solve`, `solve_triangular` and `inv`
    * `{:fft, x, length, axis}`, and likewise `ifft rfft irfft`
    * `{:conv, x, kernel, strides, low, high, kernel_dilation, input_dilation, groups, flip,
      channels_first}`: of `x`, `{batch, spatial..., channels}`, and a kernel `{outputs, spatial..., channels}`, or with
      the channels in the second place; so is the result. A CPU's kernels have f32 and f64 and any number of spatial axes,
      MLX has f32, f16 and bf16 and up to three
    * activations and gates, of real floats: `{:gelu, x}`, `{:gelu_tanh, x}`, `{:swiglu, gate, up}`,
      `{:geglu, gate, up}`, `{:geglu_tanh, gate, up}`
    * fused kernels: `{:rms_norm, x, weight, eps}`, `{:layer_norm, x, weight, bias, eps}`,
      `{:rope, x, dims, traditional, base, scale, offset, freqs}`,
      `{:attention, q, k, v, scale, mask, sinks}`,
      `{:cached_attention, q, k, v, scale, key_mask, offset}`, `{:einsum, subscripts, xs}`
    * packed numbers: `{:quantize, x, group_size, bits, mode}` (three results, or two where the mode has no biases),
      `{:dequantize, words, scales, biases, group_size, bits, mode, type}`,
      `{:quantized_matmul, x, words, scales, biases, transpose, group_size, bits, mode}`,
      `{:gather_qmm, x, words, scales, biases, lhs_indices, rhs_indices, transpose, group_size, bits, mode}`. `biases`
      may be `nil`, `mode` is a string; see `Emily.QuantizedWeight`
    * blocks of GGML's, whose type is a string such as `"q4_k"`, by a CPU's kernels alone:
      `{:dequantize_blocks, blocks, of, type}`, and `{:blocks_matmul, x, blocks, of, transpose}` with a matrix of them

  In `:cached_attention`, query `i` sees the keys up to `offset + i` where `key_mask`, integers of shape
  `{batch, keys}`, is not 0.

  ## Values with names

  `{:let, id, value, body}` names a value that `{:var, id}` uses in `body`, and
  `{:elem, i, expression}` picks one result of several; `{:tuple, expressions}` makes several of
  one expression each.

      iex> [y] = Emily.Native.run([{:let, 0, {:full, [], 3, :s32}, {:multiply, {:var, 0}, {:var, 0}}}])
      iex> Emily.Native.item(y)
      9

  An argument of the wrong kind raises an `ArgumentError`.
  """

  @typedoc "An array, or an operation with its arguments."
  @type t :: Emily.Native.array() | tuple()
end
