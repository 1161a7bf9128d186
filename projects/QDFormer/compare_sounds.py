"""Evaluate a model on the same frames with the right sound, silence, other sounds and noise.

The same as ``qdformer sounds``; ``--help`` lists the flags.
"""

from qdformer.commands.compare_sounds import main

if __name__ == "__main__":
    main()
