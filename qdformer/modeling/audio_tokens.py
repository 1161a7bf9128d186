"""F_a: the audio features of frames in one row, as attention wants them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from qdformer.layers.clip_padding import to_clips
from qdformer.layers.position_encoding import sine_position


@dataclasses.dataclass(frozen=True)
class AudioTokens:
    """Audio features of F frames.

    Attributes:
        tokens: (F, A, C), of each frame an embedding of its whole sound and, if the encoder gives
            them, one feature for each patch of it in time and frequency.
        position: (A, C) their positional embedding within the frame.
    """

    tokens: Tensor
    position: Tensor

    def of_clips(self, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is heard in each clip, frame after frame.

        Args:
            lengths: frames of each clip.

        Returns:
            (B, T * A, C) tokens, (T * A, C) positional embeddings that tell the frame, too, and the
            padding mask (B, T * A), True behind the end of a shorter clip; None if all are as long.
        """
        clips, padding = to_clips(self.tokens, lengths)  # (F, A, C) -> (B, T, A, C)
        steps = torch.arange(clips.shape[1], device=clips.device)
        time = sine_position(steps, clips.shape[-1])
        position = (time[:, None] + self.position).flatten(0, 1)
        if padding is not None:
            padding = padding.repeat_interleave(clips.shape[2], dim=1)
        return clips.flatten(1, 2), position, padding
