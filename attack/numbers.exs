# Wrong numbers: see attack/numbers/cases.ex.
Attack.Part.main("numbers", fn options -> Attack.Campaign.run(Attack.Numbers, options) end)
