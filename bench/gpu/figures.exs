# The figures of bench/gpu/table.py, on Emily: a line `name<TAB>microseconds` each.
{:ok, _} = Application.ensure_all_started(:emily)
Nx.default_backend(Emily.Backend)

median = fn fun ->
  for _ <- 1..10, do: fun.()
  times = for _ <- 1..30, do: elem(:timer.tc(fun), 0)
  times |> Enum.sort() |> Enum.at(15)
end

# Each is computed to its end; what is read of it is one number.
compiled = fn fun, arguments ->
  run = Nx.Defn.compile(fun, Enum.map(arguments, &Nx.to_template/1), compiler: Emily.Compiler)
  fn -> apply(run, arguments) |> Nx.to_number() end
end

normal = fn shape, type ->
  {x, _} = Nx.Random.normal(Nx.Random.key(1), shape: shape, type: :f32)
  x |> Nx.as_type(type) |> Nx.backend_copy(Emily.Backend)
end

last = fn x -> x |> Nx.flatten() |> Nx.slice([0], [1]) |> Nx.squeeze() end
big = normal.({4096, 4096}, :bf16)
wide = normal.({10_000, 1000}, :bf16)
q = normal.({1, 16, 2048, 128}, :bf16)
small = normal.({8}, :f32)

figures = [
  {"small add", compiled.(&last.(Nx.add(&1, 1.0)), [small])},
  {"matmul bf16 4096", compiled.(&last.(Nx.dot(&1, &1)), [big])},
  {"add bf16 16M", compiled.(&last.(Nx.add(&1, &1)), [big])},
  {"sum bf16 1e7", compiled.(&Nx.sum(&1), [wide])},
  {"sum bf16 1e7 rows", compiled.(&last.(Nx.sum(&1, axes: [1])), [wide])},
  {"softmax bf16 1e7 rows", compiled.(&last.(Axon.Activations.softmax(&1)), [wide])},
  {"attention causal bf16 2048",
   compiled.(&last.(Emily.Fast.scaled_dot_product_attention(&1, &1, &1, causal: true)), [q])},
  {"rope bf16 2048", compiled.(&last.(Emily.Fast.rope(&1, 0, dims: 128)), [q])},
  {"rms norm bf16 4096",
   compiled.(&last.(Emily.Fast.rms_norm(&1, Nx.broadcast(Nx.tensor(1, type: :bf16), {4096}))), [
     big
   ])}
]

for {name, fun} <- figures, do: IO.puts("#{name}\t#{median.(fun)}")
