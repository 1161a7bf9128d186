"""Train and evaluate QDFormer, with all of Detectron2's flags.

The same as ``qdformer train``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.train_net import main

if __name__ == "__main__":
    sys.exit(main())
