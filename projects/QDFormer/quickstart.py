"""``make demo``: composes data, trains a small QDFormer on the CPU, evaluates it and shows it.

The same as ``qdformer quickstart``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.quickstart import main

if __name__ == "__main__":
    sys.exit(main())
