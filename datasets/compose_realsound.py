"""Compose RealSound, a benchmark of real recordings; see docs/REALSOUND.md.

The same as ``qdformer realsound``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.compose_realsound import main

if __name__ == "__main__":
    sys.exit(main())
