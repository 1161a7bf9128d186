"""Checks AVSBench, or synthetic clips in its layouts, before a training uses it.

The same as ``qdformer check``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.prepare_avsbench import main

if __name__ == "__main__":
    sys.exit(main())
