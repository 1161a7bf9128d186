"""Config keys, loading and validation."""
