defmodule Emily.Watch do
  @moduledoc false
  # What looks at each operation that `Emily.Backend` runs: `Emily.Finite` and `Emily.Profile`. Where neither does, an
  # operation asks twice whether one does, in a few nanoseconds: by `:erlang.get/1` in these modules and in
  # `Emily.Stream.of/1`, since `Process.get/1` takes as long again for its calls.

  alias Emily.{Backend, Finite, Profile, Tree}
  alias Nx.Tensor, as: T

  @doc "Whether anything looks at the calling process's operations."
  def on?, do: Profile.on?() or Finite.on?()

  @doc "An operation by `run`, on the tensors among `args`, as it is looked at."
  def operation(name, args, run) do
    result =
      if Profile.on?(), do: Profile.measured(name, arrays(args), run, &arrays/1), else: run.()

    if Finite.on?(), do: Finite.check(name, args, result)
    result
  end

  # What the host holds is computed already.
  defp arrays(tree),
    do: for(%T{data: %Backend{ref: array}} <- Tree.tensors(tree), is_reference(array), do: array)
end
