defmodule Bench.Einsum do
  @moduledoc false
  # Einstein summation, Emily's order of contractions beside MLX's own. figures.py has the same
  # equations.

  alias Emily.Fast

  # The last one is where MLX multiplies all operands out at once.
  @equations [
    {"bhid,bhjd->bhij", [{1, 8, 128, 64}, {1, 8, 128, 64}]},
    {"ij,jk,kl->il", [{256, 16}, {16, 256}, {256, 16}]},
    {"abc,ai,bj,ck->ijk", [{48, 48, 48}, {48, 16}, {48, 16}, {48, 16}]},
    {"ia,ib,ic->abc", [{400, 40}, {400, 40}, {400, 40}]}
  ]

  @doc "Figures of each equation, outside of defn and compiled, over tensors that `draw` makes."
  def figures(draw, eval) do
    for {equation, shapes} <- @equations,
        operands = Enum.map(shapes, draw),
        {way, run} <- ways(equation, operands) do
      %{
        key: "einsum #{way} #{equation}",
        label:
          "`einsum` `#{equation}` #{Enum.map_join(shapes, " ", &inspect/1)}, #{way}, evaluated",
        calls: 1,
        run: fn -> eval.(run.()) end,
        python: "einsum #{equation}"
      }
    end
  end

  defp ways(equation, operands) do
    operands = List.to_tuple(operands)
    fun = &Fast.einsum(equation, Tuple.to_list(&1))
    compiled = Nx.Defn.compile(fun, [operands], compiler: Emily.Compiler)
    [{"eager", fn -> fun.(operands) end}, {"compiled", fn -> compiled.(operands) end}]
  end
end
