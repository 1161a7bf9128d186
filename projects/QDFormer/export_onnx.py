"""Write a trained model as one ONNX file and compare ONNX Runtime's results with PyTorch's.

The same as ``qdformer export``; ``--help`` lists the flags.
"""

import sys

from qdformer.commands.export_onnx import main

if __name__ == "__main__":
    sys.exit(main())
