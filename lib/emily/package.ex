defmodule Emily.Package do
  @moduledoc false
  # Packages that Emily works with and does not depend on.
  #
  # What needs one is always compiled and looks for it when it is called: Mix does not compile Emily again when a
  # project gets one later. So structs of theirs are matched and made by name.

  @modules %{axon: Axon, bumblebee: Bumblebee, jason: Jason, safetensors: Safetensors}

  @doc "Raises unless the packages that `function` needs are there."
  def require!(function, packages) do
    case Enum.reject(packages, &Code.ensure_loaded?(@modules[&1])) do
      [] ->
        :ok

      missing ->
        raise ArgumentError,
              "#{function} needs what the project does not depend on: " <>
                Enum.map_join(missing, ", ", &"the package #{&1}")
    end
  end
end
