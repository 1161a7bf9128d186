"""Composes an audio-visual segmentation data set in AVSBench's layouts; see datasets/README.md.

The same as ``qdformer compose``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.compose_avs import main

if __name__ == "__main__":
    sys.exit(main())
