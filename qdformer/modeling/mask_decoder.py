"""Semantic-guided mask decoder (Fig. 4 b, Eq. 7)."""

import dataclasses
import math

import torch
from torch import Tensor, nn

from qdformer.layers.transformer import MLP, TransformerDecoder
from qdformer.modeling.boxes import boxes_of_masks
from qdformer.modeling.visual_tokens import VisualTokens


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What each token says of each frame, after each of the D supervised decoder layers in turn.

    Attributes:
        logits: (D, F, N, num_classes) of P_{i,t}; sigmoid gives the probability of each class, and
            the empty class is that none of them is likely.
        masks: (D, F, N, h, w) logits of M_{i,t} at stride 4.
        boxes: (D, F, N, 4) B_{i,t}: center x, y, width, height as fractions of the padded frame.
    """

    logits: Tensor
    masks: Tensor
    boxes: Tensor


class MaskDecoder(nn.Module):
    """Tokens query the visual features of their frame; each becomes a filter, a class and a box."""

    def __init__(
        self,
        *,
        num_classes: int,
        layers: int,
        channels: int,
        heads: int,
        feedforward: int,
        deep_supervision: bool,
    ):
        """
        Args:
            num_classes: classes of P_{i,t}, the empty class not among them.
            layers: decoder layers.
            channels: C of tokens, visual tokens and pixel features.
            heads: attention heads.
            feedforward: hidden channels of the feed-forward nets.
            deep_supervision: in training, predict after every layer instead of the last one only.
        """
        super().__init__()
        self.decoder = TransformerDecoder(
            layers=layers, channels=channels, heads=heads, feedforward=feedforward
        )
        self.deep_supervision = deep_supervision
        self.mask_head = MLP(channels, channels, channels + 1)  # the filter and its bias
        self.class_head = MLP(channels, channels, num_classes)
        self.box_head = MLP(channels, channels, 4)
        # Focal loss wants rare positives at the start (Lin et al., 2017, Sec. 3.3).
        nn.init.constant_(self.class_head.last.bias, -math.log((1 - 0.01) / 0.01))
        # Every box starts as its mask's.
        nn.init.normal_(self.box_head.last.weight, std=0.001)
        nn.init.zeros_(self.box_head.last.bias)

    def forward(self, tokens: Tensor, visual: VisualTokens, pixels: Tensor) -> Predictions:
        """
        Args:
            tokens: VQ(l_{i,t}) (F, N, C).
            visual: F'_v.
            pixels: F_v^out (F, C, h, w).

        Returns:
            Predictions with D = layers in training under deep supervision, otherwise D = 1.
        """
        outputs = self.decoder(
            tokens,
            visual.tokens,
            memory_position=visual.position,
            memory_padding=visual.padding,
        )
        supervised = outputs if self.training and self.deep_supervision else outputs[-1:]
        decoded = torch.stack(supervised)  # (D, F, N, C)
        weight, bias = self.mask_head(decoded).split([decoded.shape[-1], 1], dim=-1)
        masks = torch.einsum("dfnc,fchw->dfnhw", weight, pixels) + bias[..., None]
        # Attention reads what the cells hold, not where they lie: that is in the masks. They do not
        # learn from the boxes, of which a soft mask's far tails would take most of the gradient.
        start = boxes_of_masks(masks.detach().float().sigmoid()).clamp(1e-3, 1 - 1e-3).logit()
        return Predictions(
            logits=self.class_head(decoded),
            masks=masks,
            boxes=(start + self.box_head(decoded)).sigmoid(),
        )
