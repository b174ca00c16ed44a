# Death amid work: of processes, of the VM, of the application, of the NIF's module, of a node, and of memory.
# In full (10,000 processes, 50 restarts) with 300 seconds or more.
Attack.Part.main("death", fn %{seconds: seconds} = options ->
  share = fn whole, least -> max(least, min(whole, div(whole * seconds, 300))) end

  Attack.Death.run(options,
    killed: share.(10_000, 100),
    endings: share.(10, 1),
    restarts: share.(50, 2),
    loads: share.(20, 2),
    nodes: share.(5, 1),
    hungry: share.(300, 10)
  )
end)
