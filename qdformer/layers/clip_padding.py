"""Between frames in one row (F) and clips side by side (B, T), for clips of different length.

Nothing here asks the device how long the clips are: the host would have to wait for the answer.
"""

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
    padding = torch.arange(longest) >= torch.tensor(lengths)[:, None]
    return clips, padding.to(frames.device, non_blocking=True)


def to_frames(clips: Tensor, lengths: list[int]) -> Tensor:
    """Undo :func:`to_clips`: (B, T, ...) to (F, ...)."""
    return torch.cat([clip[:length] for clip, length in zip(clips, lengths)])


def repeat_for_frames(per_clip: Tensor, lengths: list[int]) -> Tensor:
    """Give every frame its clip's entry: (B, ...) to (F, ...)."""
    entries = zip(per_clip.split(1), lengths)
    return torch.cat([entry.expand(length, *entry.shape[1:]) for entry, length in entries])
