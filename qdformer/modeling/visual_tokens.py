"""F_v: the cells of a visual feature pyramid in one row, as attention wants them."""

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class VisualTokens:
    """Visual features of F frames.

    Attributes:
        tokens: (F, S, C) the cells of all levels, finest level first, row by row.
        position: (F, S, C) their positional embedding.
        shapes: (h, w) of each level; the areas add up to S.
        padding: (F, S) bool, True where a frame was padded to share the batch; None if nowhere.
    """

    tokens: Tensor
    position: Tensor
    shapes: list[tuple[int, int]]
    padding: Tensor | None

    def maps(self) -> list[Tensor]:
        """The levels as (F, C, h, w) maps."""
        levels = self.tokens.split([h * w for h, w in self.shapes], dim=1)
        return [
            level.transpose(1, 2).unflatten(-1, shape) for level, shape in zip(levels, self.shapes)
        ]
