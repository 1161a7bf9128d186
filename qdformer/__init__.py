"""QDFormer: audio-visual segmentation with quantised audio semantics, on Detectron2.

Importing the package checks that its dependencies are there and makes Detectron2 importable; it
loads neither torch nor Detectron2 itself.
"""

from qdformer.compat import prepare_detectron2
from qdformer.dependencies import check_dependencies

check_dependencies()
prepare_detectron2()
