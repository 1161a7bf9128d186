"""Layers without knowledge of models: attention, positions, clips of different length."""
