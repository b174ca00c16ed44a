defmodule Emily.Observe do
  @moduledoc false
  # What Nx calls `hook` up to 0.13, and `io_call` later.

  Code.ensure_loaded!(Nx.Defn.Kernel)
  @name if function_exported?(Nx.Defn.Kernel, :io_call, 3), do: :io_call, else: :hook

  @doc "Shows a value to the function, or to the one that the caller has for the name, and gives it on."
  defmacro observe(value, name_or_function),
    do: quote(do: Nx.Defn.Kernel.unquote(@name)(unquote(value), unquote(name_or_function)))

  @doc "The same with a name, and a function where the caller has none for it."
  defmacro observe(value, name, function) do
    quote do
      Nx.Defn.Kernel.unquote(@name)(unquote(value), unquote(name), unquote(function))
    end
  end
end
