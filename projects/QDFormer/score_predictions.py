"""Score a folder of masks, ours or another method's, with all the metrics of a data set.

The same as ``qdformer score``; ``--help`` lists the flags.
"""

from qdformer.commands.score_predictions import main

if __name__ == "__main__":
    main()
