"""Train, evaluate and report a table or figure of the paper on any registered data sets.

The same as ``qdformer reproduce``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
