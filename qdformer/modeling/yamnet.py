"""Audio encoder: YAMNet, MobileNetV1 trained on AudioSet's 521 classes."""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from qdformer.errors import InputError
from qdformer.modeling.audio_encoder import AUDIO_NETWORK_REGISTRY, AudioNetwork

# Channels and stride of each block.
BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.depthwise = _SameConv2d(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu6(self.pointwise(F.relu6(self.depthwise(features))))


class _SameConv2d(nn.Conv2d):
    """TensorFlow's padding SAME of 3 x 3: with stride 2, even sizes are padded at the end alone."""

    def forward(self, features: Tensor) -> Tensor:
        before = 2 - self.stride[0]
        return super().forward(F.pad(features, (before, 1, before, 1)))


@AUDIO_NETWORK_REGISTRY.register()
class YAMNet(AudioNetwork):
    """A convolution and 13 depthwise separable ones, whose features are averaged.

    The names and shapes are those of the released TensorFlow Lite model, which has ReLU6 and batch
    normalization folded into its convolutions (the Keras release has ReLU and other weights).
    """

    patch_channels = out_channels = 1024

    @configurable
    def __init__(self) -> None:
        super().__init__()
        self.stem = _SameConv2d(1, 32, 3, stride=2)
        widths = [32, *(channels for channels, _ in BLOCKS)]
        self.blocks = nn.Sequential(
            *(_Block(width, *block) for width, block in zip(widths, BLOCKS))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """It has no settings.

        Raises:
            InputError: a normalization is asked for.
        """
        if norm := cfg.MODEL.AUDIO.NORM:
            raise InputError(
                f"MODEL.AUDIO.NORM is {norm!r}; YAMNet's is folded into its convolutions, so leave "
                'it at ""'
            )
        return {}

    def patches(self, log_mel: Tensor) -> Tensor:
        """(F, 1, 96, 64) to (F, 3, 2, 1024), see :meth:`AudioNetwork.patches`."""
        # The same spectrogram with another offset below the logarithm: 0.001 instead of 0.01.
        own_log_mel = torch.log((log_mel.exp() - 0.009).clamp(min=0.001))
        return self.blocks(F.relu6(self.stem(own_log_mel))).permute(0, 2, 3, 1)

    def embed(self, patches: Tensor) -> Tensor:
        """(F, 3, 2, 1024) to (F, 1024), their mean."""
        return patches.mean(dim=(1, 2))
