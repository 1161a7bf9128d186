"""Synthetic clips with exact ground truth: assets, scenes, noise, the composer."""
