"""Several videos one after the other; what cannot be used is told, and the rest goes on."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qdformer.demo.annotate import AnnotateOptions, annotate, check_replaceable
from qdformer.errors import InputError, make_folder, one_line_message
from qdformer.predictor import AudioVisualPredictor
from qdformer.progress import Progress
from qdformer.video.reader import VideoFile

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a video.

    Attributes:
        video: as it was given.
        folder: with the results.
        error: one sentence where there are none, else "".
    """

    video: Path
    folder: Path
    error: str = ""


def annotate_all(
    load: Callable[[], AudioVisualPredictor],
    videos: Sequence[Path],
    output: Path,
    options: AnnotateOptions,
    sound_track: int | None = None,
) -> list[Outcome]:
    """Annotate videos, each into ``output / <its file name>``, with one progress bar for all.

    Args:
        load: makes the predictor, once there is a video that can be opened.
        videos: files.
        output: a folder.
        options: how.
        sound_track: which track is heard, from 0 on; None for the first that can be.

    Returns:
        What became of each, in the order given.

    Raises:
        InputError: two videos have one name, or the output cannot be written.
    """
    folders = {video: output / video.name for video in videos}
    if len({*folders.values()}) < len(videos):
        raise InputError(
            f"{output}: several of the {len(videos)} videos have one name, and so would their "
            "folders; annotate them one folder at a time"
        )
    make_folder(output, f"the output folder {output}")
    outcomes, opened = {}, {}
    for video in videos:
        try:
            check_replaceable(folders[video])
            opened[video] = VideoFile(video, sound_track)
        except Exception as error:
            outcomes[video] = Outcome(video, folders[video], _reason(video, error))
            logger.error("%s", outcomes[video].error)
    predictor: Any = load() if opened else None
    total = sum(file.duration or 0 for file in opened.values())
    with Progress(total=round(total, 1), unit="s of video", unit_scale=False) as bar:
        for number, (video, file) in enumerate(opened.items(), start=1):
            bar.set_description(f"{number}/{len(opened)} {video.name}")
            progress = functools.partial(_move, bar, bar.n)
            try:
                annotate(predictor, file, folders[video], options, progress)
                outcomes[video] = Outcome(video, folders[video])
            # Whatever it is, also memory that runs out and a full disk: the others go on.
            except Exception as error:
                outcomes[video] = Outcome(video, folders[video], _reason(video, error))
                logger.error("%s", outcomes[video].error)
                logger.debug("", exc_info=error)
            progress(file.duration or 0)
            if not file.num_sound_tracks:
                logger.warning("%s: has no sound, so that nothing in it sounds.", video)
    return [outcomes[video] for video in videos]


def _reason(video: Path, error: Exception) -> str:
    if isinstance(error, InputError):
        return one_line_message(error)
    name = str(video).encode(errors="backslashreplace").decode()
    told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return f"{name}: not annotated ({told}); free memory or disk, or leave it out"


def _move(bar: Progress, start: float, seconds: float) -> None:
    bar.update(start + seconds - bar.n)
