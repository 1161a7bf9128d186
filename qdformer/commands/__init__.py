"""The commands: one module each, with the same flags as a script and as ``qdformer <command>``."""
