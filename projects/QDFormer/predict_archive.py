"""Segment what sounds in every video of an archive: tables of masks, classes, scores and codewords.

The same as ``qdformer archive``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.predict_archive import main

if __name__ == "__main__":
    sys.exit(main())
