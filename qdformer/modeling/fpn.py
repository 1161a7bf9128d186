"""Feature pyramid network: Detectron2's own, fed with recombined features, not by a backbone."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from torch import Tensor, nn

from qdformer.modeling.visual_tokens import VisualTokens


class PassThrough(Backbone):
    """A bottom-up network that is handed its features: FPN reads them from ``bottom_up(x)``."""

    def __init__(self, shapes: dict[str, ShapeSpec]):
        """
        Args:
            shapes: channels and stride of every map, finest first.
        """
        super().__init__()
        self._out_features = list(shapes)
        self._out_feature_channels = {name: shape.channels for name, shape in shapes.items()}
        self._out_feature_strides = {name: shape.stride for name, shape in shapes.items()}

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the maps as they come."""
        return x


class PixelFPN(nn.Module):
    """F'_v and the backbone's finest map to the pixel features F_v^out at stride 4."""

    def __init__(self, *, shapes: dict[str, ShapeSpec], channels: int, norm: str):
        """
        Args:
            shapes: the backbone's map at stride 4, then the levels of F'_v.
            channels: C of the result.
            norm: Detectron2's name of the normalization.
        """
        super().__init__()
        self.in_features = list(shapes)
        self.fpn = FPN(PassThrough(shapes), self.in_features, channels, norm=norm)
        # Only the finest map is read: the 3 x 3 convolutions that smooth the others have no use.
        for index, convolution in enumerate(self.fpn.output_convs[:-1]):
            name = next(n for n, child in self.fpn.named_children() if child is convolution)
            setattr(self.fpn, name, nn.Identity())
            self.fpn.output_convs[index] = nn.Identity()

    def forward(self, features: dict[str, Tensor], visual: VisualTokens) -> Tensor:
        """
        Args:
            features: the backbone's maps.
            visual: F'_v, which takes the place of all of them but the finest.

        Returns:
            F_v^out (F, C, H/4, W/4).
        """
        finest, *coarser = self.in_features
        bottom_up = {finest: features[finest]} | dict(zip(coarser, visual.maps(), strict=True))
        return self.fpn(bottom_up)["p2"]
