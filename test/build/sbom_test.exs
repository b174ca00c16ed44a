defmodule Emily.Build.SbomTest do
  # The bill of materials, whose names are CycloneDX's.
  use ExUnit.Case, async: true

  alias Emily.Build.Sbom

  test "has crates, wheels and packages, each once and what is fetched with its hash" do
    package = Sbom.package(:nx, "0.12.1", String.duplicate("0", 64))
    bill = Sbom.bill(File.cwd!(), "1.2.3", [package])
    assert %{"bomFormat" => "CycloneDX", "specVersion" => "1.5"} = bill
    assert bill["metadata"]["component"]["purl"] == "pkg:hex/emily_mlx@1.2.3"

    components = bill["components"]
    refs = Enum.map(components, & &1["bom-ref"])
    assert refs == Enum.uniq(refs)

    for component <- components do
      assert [%{"alg" => "SHA-256", "content" => sha256}] = component["hashes"]
      assert sha256 =~ ~r/^[0-9a-f]{64}$/
    end

    for purl <- [
          "pkg:cargo/rustler@",
          "pkg:cargo/mlx-sys@0.7.0",
          "pkg:pypi/mlx-cpu@",
          "pkg:hex/nx@0.12.1"
        ],
        do: assert(Enum.any?(components, &String.starts_with?(&1["purl"], purl)), purl)

    # The models of the pool alone take it.
    refute Enum.any?(components, &(&1["name"] == "loom"))
  end
end
