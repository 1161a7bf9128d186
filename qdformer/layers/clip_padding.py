"""Between frames in one row (F) and clips side by side (B, T), for clips of different length."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def to_clips(frames: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor | None]:
    """Lay the frames of each clip side by side.

    Args:
        frames: (F, ...) the frames of all clips, one clip after the other.
        lengths: frames of each clip, B entries that add up to F.

    Returns:
        (B, T, ...) with T the longest clip, zeros behind shorter ones, and the padding mask (B, T),
        True where there is no frame; None when all clips are equally long.
    """
    longest = max(lengths)
    if min(lengths) == longest:
        return frames.unflatten(0, (len(lengths), longest)), None
    clips = pad_sequence(list(frames.split(lengths)), batch_first=True)
    steps = torch.arange(longest, device=frames.device)
    return clips, steps[None] >= torch.tensor(lengths, device=frames.device)[:, None]


def to_frames(clips: Tensor, padding: Tensor | None) -> Tensor:
    """Undo :func:`to_clips`: (B, T, ...) and its padding mask to (F, ...)."""
    return clips.flatten(0, 1) if padding is None else clips[~padding]


def repeat_for_frames(per_clip: Tensor, lengths: list[int]) -> Tensor:
    """Give every frame its clip's entry: (B, ...) to (F, ...)."""
    counts = torch.tensor(lengths, device=per_clip.device)
    return per_clip.repeat_interleave(counts, dim=0, output_size=sum(lengths))
