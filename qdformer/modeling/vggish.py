"""Audio encoder: VGGish (Hershey et al., 2017), one embedding for each 0.96 s example."""

from collections.abc import Sequence

import torch
from detectron2.layers import get_norm
from torch import Tensor, nn

CONVOLUTIONS_PER_STAGE = (1, 1, 2, 2)


class VGGish(nn.Module):
    """Four stages of 3 x 3 convolutions with pooling, then three linear layers.

    With the published widths and without normalisation the parameter names and shapes are those of
    the released ``vggish-10086976.pth``.
    """

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
            norm: Detectron2's name of a normalisation after each convolution; "" as published.
        """
        super().__init__()
        layers, channels = [], 1
        for width, convolutions in zip(conv_dims, CONVOLUTIONS_PER_STAGE, strict=True):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not norm))
                if norm:
                    layers.append(get_norm(norm, width))
                layers.append(nn.ReLU(inplace=True))
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        layers, channels = [], channels * 6 * 4  # 96 x 64 after four poolings
        for width in fc_dims:
            layers += [nn.Linear(channels, width), nn.ReLU(inplace=True)]
            channels = width
        self.embeddings = nn.Sequential(*layers)
        self.out_channels = channels
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, log_mel: Tensor) -> Tensor:
        """
        Args:
            log_mel: (F, 1, 96, 64), see :func:`qdformer.data.audio.log_mel`.

        Returns:
            (F, 128) embeddings, at least 0.
        """
        features = self.features(log_mel)
        # The released weights expect time and frequency before channels.
        return self.embeddings(features.permute(0, 2, 3, 1).flatten(1))


class AudioEncoder(nn.Module):
    """VGGish and a projection of its embedding to C channels: F_a."""

    def __init__(self, *, vggish: VGGish, channels: int, frozen: bool):
        """
        Args:
            vggish: the network.
            channels: C.
            frozen: keep VGGish as it is and train the projection alone.
        """
        super().__init__()
        self.vggish = vggish.requires_grad_(not frozen)
        self.frozen = frozen
        self.projection = nn.Linear(vggish.out_channels, channels)

    def train(self, mode: bool = True) -> "AudioEncoder":
        """Keep a frozen VGGish in evaluation mode, so that no statistic of it moves."""
        super().train(mode)
        self.vggish.train(mode and not self.frozen)
        return self

    def forward(self, log_mel: Tensor) -> Tensor:
        """(F, 1, 96, 64) log-mel examples to F_a (F, C)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            embedding = self.vggish(log_mel)
        return self.projection(embedding)
