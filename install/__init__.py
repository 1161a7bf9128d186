"""Installs what pip cannot; in a wheel as ``qdformer_install``."""
