"""Segment what sounds in your own videos in the browser.

The same as ``qdformer web``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.web_demo import main

if __name__ == "__main__":
    sys.exit(main())
