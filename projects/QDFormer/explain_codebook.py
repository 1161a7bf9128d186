"""Write a page that lets one hear and see what each word of a trained codebook stands for.

The same as ``qdformer words``; ``--help`` lists the flags.
"""

from qdformer.commands.explain_codebook import main

if __name__ == "__main__":
    main()
