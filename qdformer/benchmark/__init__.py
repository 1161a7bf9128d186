"""Measures speed and memory: of a model and its stages, of the data and of the evaluators."""
