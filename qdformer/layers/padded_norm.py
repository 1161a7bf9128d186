"""Normalization of frames that are padded to share a batch: padding does not count."""

from torch import Tensor, nn


class PaddedGroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He, 2018) over the cells of each frame that are not padding."""

    def forward(self, maps: Tensor, padding: Tensor | None = None) -> Tensor:
        """
        Args:
            maps: (F, C, h, w).
            padding: (F, h*w) bool, True where the frame is padded; None if nowhere.

        Returns:
            (F, C, h, w), also where it is padded.
        """
        if padding is None:
            return super().forward(maps)
        groups = maps.flatten(2).unflatten(1, (self.num_groups, -1))  # (F, G, C/G, h*w)
        counted = ~padding[:, None, None]
        share = counted / (counted.sum(-1, keepdim=True) * groups.shape[2])
        centered = groups - (groups * share).sum((-1, -2), keepdim=True)
        variance = (centered.square() * share).sum((-1, -2), keepdim=True)
        normalized = (centered * (variance + self.eps).rsqrt()).flatten(1, 2)
        scaled = normalized * self.weight[:, None] + self.bias[:, None]
        return scaled.to(maps.dtype).view_as(maps)


def normalize_cells(norm: nn.Module, tokens: Tensor, padding: Tensor | None) -> Tensor:
    """Batch normalization over the cells of a batch of frames that are not padding.

    Args:
        norm: of (cells, C), possibly over several processes.
        tokens: (F, S, C).
        padding: (F, S) bool, True where a frame is padded; None if nowhere.

    Returns:
        (F, S, C); in training padded cells stay as they are.
    """
    if padding is None or not norm.training:
        return norm(tokens.flatten(0, 1)).view_as(tokens)
    # The host waits for the device to count the cells, in padded training batches only.
    counted = ~padding
    return tokens.masked_scatter(counted[..., None], norm(tokens[counted]).to(tokens.dtype))
