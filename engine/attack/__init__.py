"""Second readings: attack experiments on memorised facts, and defences."""
