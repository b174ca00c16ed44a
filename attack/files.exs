# Hostile files: see attack/files/cases.ex.
Attack.Part.main("files", fn options -> Attack.Campaign.run(Attack.Files, options) end)
