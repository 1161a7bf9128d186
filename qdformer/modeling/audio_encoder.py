"""F_a: an audio network's features of each frame's sound, brought to C channels."""

from abc import ABC, abstractmethod

import torch
from detectron2.config import CfgNode
from fvcore.common.registry import Registry
from torch import Tensor, nn

from qdformer.layers.position_encoding import sine_position_2d
from qdformer.modeling.audio_tokens import AudioTokens

AUDIO_NETWORK_REGISTRY = Registry("AUDIO_NETWORK")
AUDIO_NETWORK_REGISTRY.__doc__ = """
Networks for ``MODEL.AUDIO.NAME``: an :class:`AudioNetwork` that is made from a config.
"""


class AudioNetwork(nn.Module, ABC):
    """What hears one log-mel example of 0.975 s.

    Attributes:
        patch_channels: of its features by time and frequency.
        out_channels: of its embedding.
    """

    patch_channels: int
    out_channels: int

    @abstractmethod
    def patches(self, log_mel: Tensor) -> Tensor:
        """Features by time and frequency.

        Args:
            log_mel: (F, 1, 96, 64), see :func:`qdformer.audio.log_mel.log_mel`; a network whose
                front end differs converts them.

        Returns:
            (F, times, bands, patch_channels).
        """

    @abstractmethod
    def embed(self, patches: Tensor) -> Tensor:
        """:meth:`patches` to one embedding an example, (F, out_channels)."""

    def forward(self, log_mel: Tensor) -> Tensor:
        """(F, 1, 96, 64) log-mel examples to (F, out_channels) embeddings."""
        return self.embed(self.patches(log_mel))


class AudioEncoder(nn.Module):
    """An audio network and projections to C channels."""

    def __init__(
        self,
        *,
        network: AudioNetwork,
        channels: int,
        frozen: bool,
        trained_layers: int = 0,
        patches: bool = False,
    ):
        """
        Args:
            network: the network.
            channels: C.
            frozen: keep the network as it is and train the projections alone.
            trained_layers: of a frozen network, the last so many convolutions and linear layers
                are trained all the same.
            patches: give the network's features by time and frequency, too. With the embedding
                alone, as in the paper, attention to a single frame has one key, so that all
                prototypes read the same of it.
        """
        super().__init__()
        self.network = network
        self.frozen = _all_but_last(network, trained_layers) if frozen else []
        for module in self.frozen:
            module.requires_grad_(False)
        self.projection = nn.Linear(network.out_channels, channels)
        self.patch_projection = nn.Linear(network.patch_channels, channels) if patches else None

    def train(self, mode: bool = True) -> "AudioEncoder":
        """Keep what is frozen in evaluation mode, so that no statistic of it moves."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, log_mel: Tensor) -> AudioTokens:
        """(F, 1, 96, 64) log-mel examples to F_a, A = 1 or, with patches, 1 + times * bands."""
        patches = self.network.patches(log_mel)
        tokens = self.projection(self.network.embed(patches))[:, None]
        position = tokens.new_zeros(1, tokens.shape[-1])
        if self.patch_projection is not None:
            times, bands = patches.shape[1:3]
            tokens = torch.cat((tokens, self.patch_projection(patches).flatten(1, 2)), dim=1)
            grid = sine_position_2d(times, bands, position.new_ones(1, 2), tokens.shape[-1])
            position = torch.cat((position, grid[0]))
        return AudioTokens(tokens, position)


def build_audio_encoder(cfg: CfgNode) -> AudioEncoder:
    """The encoder that ``MODEL.AUDIO`` describes."""
    audio = cfg.MODEL.AUDIO
    return AudioEncoder(
        network=AUDIO_NETWORK_REGISTRY.get(audio.NAME)(cfg),
        channels=cfg.MODEL.QDFORMER.HIDDEN_DIM,
        frozen=bool(audio.FREEZE and audio.WEIGHTS),
        trained_layers=audio.TRAINED_LAYERS,
        patches=audio.PATCHES,
    )


def _all_but_last(network: nn.Module, layers: int) -> list[nn.Module]:
    """The modules without parts of their own before the last convolutions and linear layers."""
    leaves = [module for module in network.modules() if not any(module.children())]
    weighted = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (nn.Conv2d, nn.Linear))]
    # One more entry than layers, for what comes behind the last of them.
    starts = [*weighted[1:], len(leaves)]
    return leaves[: starts[-1 - layers]] if layers < len(weighted) else []
