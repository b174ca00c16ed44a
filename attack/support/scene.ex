defmodule Attack.Scene do
  @moduledoc false
  # A piece of an attack in a VM of its own. What it finds it prints: `fault/1`, and `count/1` for what it did.

  alias Attack.Child

  @doc """
  Calls `module.name(argument)` in a VM of its own, for at most `seconds`: `%{cases: integer, faults: [text]}`. It is a fault
  where that VM does not end by itself, with the status 0.
  """
  def play(module, name, argument, seconds, environment \\ []) do
    child = open(module, name, argument, environment)
    {:ok, heard} = Agent.start_link(fn -> [] end)

    hear = fn line ->
      if not String.starts_with?(line, "@"), do: IO.puts(line)
      Agent.update(heard, &[line | &1])
    end

    ending = Child.follow(child, seconds, hear)
    lines = Agent.get(heard, & &1)
    Agent.stop(heard)
    told = for "@" <> line <- lines, do: line |> Base.decode64!() |> :erlang.binary_to_term()
    faults = for {:fault, text} <- told, do: "#{name}: #{text}"

    ended =
      if ending == {:exit, 0},
        do: [],
        else: ["#{name} ended with #{inspect(ending)}:\n#{tail(lines)}"]

    %{cases: Enum.sum(for {:count, count} <- told, do: count), faults: faults ++ ended}
  end

  @doc "Starts a VM that calls `module.name(argument)`."
  def open(module, name, argument, environment \\ []) do
    argument = argument |> :erlang.term_to_binary() |> Base.encode64()
    arguments = ["-e", "Attack.Scene.child()", inspect(module), "#{name}", argument]
    Child.open(arguments, environment)
  end

  @doc "What such a VM runs."
  def child do
    [module, name, argument] = System.argv()
    Logger.configure(level: :none)
    argument = argument |> Base.decode64!() |> :erlang.binary_to_term()
    apply(Module.concat([module]), String.to_atom(name), [argument])
  end

  @doc "All answers as one."
  def together(answers) do
    %{
      cases: Enum.sum(Enum.map(answers, & &1.cases)),
      faults: Enum.flat_map(answers, & &1.faults)
    }
  end

  def fault(text), do: tell({:fault, text})
  def count(count), do: tell({:count, count})

  defp tell(term), do: IO.puts("@" <> Base.encode64(:erlang.term_to_binary(term)))

  defp tail(lines),
    do:
      lines
      |> Enum.reject(&String.starts_with?(&1, "@"))
      |> Enum.take(20)
      |> Enum.reverse()
      |> Enum.join("\n")
end
