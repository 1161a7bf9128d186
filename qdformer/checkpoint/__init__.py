"""Checkpoints: weights, metadata, pre-trained sources, conversion."""
