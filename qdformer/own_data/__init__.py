"""Data of one's own, in the formats that label tools write, made into trees that are read here."""
