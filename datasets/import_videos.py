"""Make videos with annotations a data set to train and test on.

The same as ``qdformer import``; ``--help`` lists the flags.
"""

from qdformer.commands.import_videos import main

if __name__ == "__main__":
    main()
