"""Numbers of any precision where sums of their squares are finite in single precision."""

from torch import Tensor

LIMIT = 1e15


def clamp_finite(values: Tensor) -> Tensor:
    """Values in float32, the finite ones no further than ``LIMIT`` from 0.

    Infinite ones become NaN, so that what is computed from them does not pass for sound.
    """
    values = values.float()
    return values.clamp(-LIMIT, LIMIT) + 0 * values
