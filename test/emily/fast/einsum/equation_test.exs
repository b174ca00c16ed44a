defmodule Emily.Fast.Einsum.EquationTest do
  use ExUnit.Case, async: true

  alias Emily.Fast.Einsum.Equation

  test "is completed" do
    for {equation, shapes, complete} <- [
          {"ij,jk", [{2, 3}, {3, 4}], "ij,jk->ik"},
          {"ba", [{2, 3}], "ba->ab"},
          {"bA", [{2, 3}], "bA->Ab"},
          {"ii", [{2, 2}], "ii->"},
          {" i j -> j i ", [{2, 3}], "ij->ji"},
          {"i...j,jk", [{2, 5, 3}, {3, 4}], "iaj,jk->aik"},
          {"Ab,bA", [{2, 3}, {3, 2}], "Ab,bA->"},
          {",i", [{}, {3}], ",i->i"},
          {"...i,...i->...", [{4, 1, 3}, {7, 3}], "abi,bi->ab"},
          {"a...->...a", [{2}], "a->a"},
          {"ij->i...", [{2, 3}], "ij->i"}
        ] do
      {groups, output, _sizes} = Equation.parse!(equation, shapes)
      assert Equation.text(groups, output) == complete
      assert Equation.groups(complete) == {groups, output}
    end
  end

  test "gives each letter its size" do
    assert {_, _, %{?i => 2, ?j => 3, ?k => 1, ?a => 4, ?b => 7}} =
             Equation.parse!("...ij,...jk", [{4, 1, 2, 1}, {7, 3, 1}])
  end

  test "is refused where it is malformed or does not fit" do
    for {equation, shapes, message} <- [
          {"ij", [{2, 3}, {3, 4}], "got 2 operands for 1 groups"},
          {"ij,jk,", [{2, 3}, {3, 4}], "got 2 operands for 3 groups"},
          {"i->j->k", [{2}], ~s(expects at most one "->")},
          {"i1->i", [{2, 2}], ~s(expects letters, commas, "..." and "->", got: "1")},
          {"ä->", [{2}], ~s(expects letters, commas, "..." and "->", got: "ä")},
          {"i.j->", [{2, 2}], ~s(expects letters, commas, "..." and "->", got: ".")},
          {"i-j", [{2, 2}], ~s(expects letters, commas, "..." and "->", got: "-")},
          {"i\n->i", [{2}], ~s(expects letters, commas, "..." and "->", got: "\\n")},
          {<<"i", 255>>, [{2}], ~s(expects the subscripts as a string, got: <<105, 255>>)},
          {"i->i,i", [{2}], ~s(expects letters, commas, "..." and "->", got: ",")},
          {"...i...->i", [{2}], "expects at most one ellipsis a group"},
          {"ij->i", [{2}], ~s(got an operand of shape {2} for the group "ij")},
          {"i->i", [{2, 3}], ~s(got an operand of shape {2, 3} for the group "i")},
          {"ij...->i", [{2}], ~s(got an operand of shape {2} for the group "ij...")},
          {"ii->i", [{2, 3}],
           ~s(takes the diagonal of equal axes only, got sizes 2 and 3 for "i" in shape {2, 3})},
          {"ii->i", [{1, 3}],
           ~s(takes the diagonal of equal axes only, got sizes 1 and 3 for "i" in shape {1, 3})},
          {"ij,jk->ik", [{2, 3}, {4, 5}], ~s(got sizes 3 and 4 for axis "j")},
          {"...i,...i->...", [{4, 3}, {5, 3}], "got sizes 4 and 5 for an axis of the ellipsis"},
          {"ij->ii", [{2, 2}], ~s(takes each letter once in the result, got: "ii")},
          {"ij->ik", [{2, 2}], ~s(got "k" in the result but in no operand)},
          {"...i->i", [{2, 2}], ~s(needs "..." in the result, where the axes without letters go)},
          {"i,j,k->ijk", [{2000}, {2000}, {2000}],
           "would give 8000000000 elements, more than 2147483647"},
          {"#{Enum.concat(?a..?z, ?A..?Y)}...", [Tuple.duplicate(1, 53)],
           "takes up to 52 different axes, those of the ellipsis included, got 53"}
        ] do
      assert catch_throw(Equation.parse!(equation, shapes)) == {:refused, message}
    end
  end
end
