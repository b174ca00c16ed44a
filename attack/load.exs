# Load: a hundred processes at once, a compiled step again and again, and shapes that nobody had before.
# In full (ten minutes, 100,000 rounds, 100,000 shapes) with `--minutes 30` or more and `--only load`.
Attack.Part.main("load", fn %{seconds: seconds} = options ->
  share = div(seconds, 3)
  count = fn least -> max(least, min(100_000, 100 * seconds)) end

  Attack.Load.run(options,
    seconds: min(600, max(2, share)),
    rounds: count.(2_000),
    shapes: count.(2_000)
  )
end)
