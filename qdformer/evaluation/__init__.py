"""Metrics as pure functions of arrays, and the evaluators that feed them."""
