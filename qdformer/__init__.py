"""QDFormer: audio-visual segmentation with quantized audio semantics, on Detectron2.

Importing the package makes Detectron2 importable and registers the meta-architectures, backbones,
audio networks and AVSBench's data sets, so that Detectron2's own functions find them by name.
"""

from importlib import import_module

from qdformer.compat import prepare_detectron2
from qdformer.dependencies import check_dependencies

check_dependencies()
prepare_detectron2()

from qdformer.config.defaults import add_qdformer_config  # noqa: E402
from qdformer.data.datasets.registration import register_avs_dataset  # noqa: E402
from qdformer.modeling import meta_arch, vggish, yamnet  # noqa: E402

__all__ = [
    "AudioVisualPredictor",
    "add_qdformer_config",
    "meta_arch",
    "register_avs_dataset",
    "vggish",
    "yamnet",
]


def __getattr__(name: str):
    # It brings the video containers, which a training never opens.
    if name == "AudioVisualPredictor":
        return import_module("qdformer.predictor").AudioVisualPredictor
    raise AttributeError(f"module 'qdformer' has no attribute {name!r}; it has {__all__}")
