"""Make published pre-trained weights into what MODEL.WEIGHTS or MODEL.AUDIO.WEIGHTS load.

The same as ``qdformer convert``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.convert_weights import main

if __name__ == "__main__":
    sys.exit(main())
