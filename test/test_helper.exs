# No test is about time: this ends one that hangs, on a busy machine too.
# A GPU has no f64, and some tests are about what a CPU alone does: its kernels, its memory, its rounding.
exclude = if :gpu in Emily.Native.devices(), do: [:f64, :cpu], else: []
ExUnit.start(timeout: 900_000, assert_receive_timeout: 60_000, exclude: exclude)
