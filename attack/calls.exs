# Hostile calls: see attack/calls/cases.ex.
Attack.Part.main("calls", fn options -> Attack.Campaign.run(Attack.Calls, options) end)
