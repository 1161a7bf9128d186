"""Measure how fast a config is and what it needs, in units of a ResNet-50 timed in turn with it.

The same as ``qdformer benchmark``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
