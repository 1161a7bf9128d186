"""Audio encoder: VGGish (Hershey et al., 2017), one embedding for each 0.96 s example."""

from collections.abc import Sequence

import torch
from detectron2.layers import get_norm
from torch import Tensor, nn

from qdformer.layers.position_encoding import sine_position_2d
from qdformer.modeling.audio_tokens import AudioTokens

CONVOLUTIONS_PER_STAGE = (1, 1, 2, 2)


class VGGish(nn.Module):
    """Four stages of 3 x 3 convolutions with pooling, then three linear layers.

    With the published widths and without normalization the parameter names and shapes are those of
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

    def forward(self, log_mel: Tensor) -> Tensor:
        """
        Args:
            log_mel: (F, 1, 96, 64), see :func:`qdformer.audio.log_mel.log_mel`.

        Returns:
            (F, 128) embeddings, at least 0.
        """
        return self.embed(self.patches(log_mel))

    def patches(self, log_mel: Tensor) -> Tensor:
        """(F, 1, 96, 64) to (F, 6, 4, channels), features by time and frequency."""
        return self.features(log_mel).permute(0, 2, 3, 1)

    def embed(self, patches: Tensor) -> Tensor:
        """(F, 6, 4, channels) to (F, 128) embeddings."""
        # The released weights expect time and frequency before channels.
        return self.embeddings(patches.flatten(1))


class AudioEncoder(nn.Module):
    """VGGish and projections to C channels: F_a."""

    def __init__(self, *, vggish: VGGish, channels: int, frozen: bool, patches: bool = False):
        """
        Args:
            vggish: the network.
            channels: C.
            frozen: keep VGGish as it is and train the projections alone.
            patches: give the features of its last convolution, too, one for each of 6 x 4 patches
                in time and frequency. With the embedding alone, as in the paper, attention to a
                single frame has one key, so that all prototypes read the same of it.
        """
        super().__init__()
        self.vggish = vggish.requires_grad_(not frozen)
        self.frozen = frozen
        self.projection = nn.Linear(vggish.out_channels, channels)
        self.patch_projection = nn.Linear(vggish.patch_channels, channels) if patches else None

    def train(self, mode: bool = True) -> "AudioEncoder":
        """Keep a frozen VGGish in evaluation mode, so that no statistic of it moves."""
        super().train(mode)
        self.vggish.train(mode and not self.frozen)
        return self

    def forward(self, log_mel: Tensor) -> AudioTokens:
        """(F, 1, 96, 64) log-mel examples to F_a, A = 1 or, with patches, 1 + 24."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            patches = self.vggish.patches(log_mel)
            embedding = self.vggish.embed(patches)
        tokens = self.projection(embedding)[:, None]
        position = tokens.new_zeros(1, tokens.shape[-1])
        if self.patch_projection is not None:
            times, bands = patches.shape[1:3]
            tokens = torch.cat((tokens, self.patch_projection(patches).flatten(1, 2)), dim=1)
            grid = sine_position_2d(times, bands, position.new_ones(1, 2), tokens.shape[-1])
            position = torch.cat((position, grid[0]))
        return AudioTokens(tokens, position)
