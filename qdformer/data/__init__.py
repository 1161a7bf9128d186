"""Clips and how they reach the network: records, mapper, loader."""
