"How good a fill is, and how it looks"
