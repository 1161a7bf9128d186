"""Bring annotations of videos to another format, with their pictures.

The same as ``qdformer annotations``; ``--help`` lists the flags.
"""

from qdformer.commands.convert_annotations import main

if __name__ == "__main__":
    main()
