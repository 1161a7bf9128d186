"""Segment what sounds in your own videos: overlays with sound, label maps, annotations, time lines.

The same as ``qdformer predict``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.demo import main

if __name__ == "__main__":
    sys.exit(main())
