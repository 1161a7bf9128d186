"""Audio encoder: VGGish (Hershey et al., 2017), one embedding for each 0.96 s example."""

from collections.abc import Sequence

from detectron2.config import CfgNode, configurable
from detectron2.layers import get_norm
from torch import Tensor, nn

from qdformer.modeling.audio_encoder import AUDIO_NETWORK_REGISTRY, AudioNetwork

CONVOLUTIONS_PER_STAGE = (1, 1, 2, 2)


@AUDIO_NETWORK_REGISTRY.register()
class VGGish(AudioNetwork):
    """Four stages of 3 x 3 convolutions with pooling, then three linear layers.

    With the published widths and without normalization the parameter names and shapes are those of
    the released ``vggish-10086976.pth``.
    """

    @configurable
    def __init__(
        self,
        *,
        conv_dims: Sequence[int] = (64, 128, 256, 512),
        fc_dims: Sequence[int] = (4096, 4096, 128),
        norm: str = "",
    ):
        """
        Args:
            conv_dims: channels of the four stages.
            fc_dims: widths of the three linear layers; the last one is the embedding's.
            norm: Detectron2's name of a normalization after each convolution; "" as published.
        """
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, convolutions in zip(conv_dims, CONVOLUTIONS_PER_STAGE, strict=True):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not norm))
                if norm:
                    layers.append(get_norm(norm, width))
                layers.append(nn.ReLU(inplace=True))
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.patch_channels = channels
        layers, channels = [], channels * 6 * 4  # 96 x 64 after four poolings
        for width in fc_dims:
            layers += [nn.Linear(channels, width), nn.ReLU(inplace=True)]
            channels = width
        self.embeddings = nn.Sequential(*layers)
        self.out_channels = channels
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Translate a config to the arguments of the constructor."""
        audio = cfg.MODEL.AUDIO
        return {"conv_dims": audio.CONV_DIMS, "fc_dims": audio.FC_DIMS, "norm": audio.NORM}

    def patches(self, log_mel: Tensor) -> Tensor:
        """(F, 1, 96, 64) to (F, 6, 4, channels), features by time and frequency."""
        return self.features(log_mel).permute(0, 2, 3, 1)

    def embed(self, patches: Tensor) -> Tensor:
        """(F, 6, 4, channels) to (F, 128) embeddings."""
        # The released weights expect time and frequency before channels.
        return self.embeddings(patches.flatten(1))
