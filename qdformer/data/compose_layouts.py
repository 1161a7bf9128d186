"""Where AVSBench's three layouts keep the files of a clip, and how they are written."""

import io
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import soundfile

from qdformer.data.audio import SAMPLE_RATE
from qdformer.data.classes import class_palette

Paint = Callable[[np.ndarray], np.ndarray]

_ENCODING = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".png": []}
_PALETTE = class_palette(256)


@dataclass(frozen=True)
class ClipFiles:
    """The files of a clip, relative to the folder of its layout.

    Attributes:
        frames: T paths.
        masks: T lists of a path and what turns labels (H, W) into the picture to be stored there,
            grey (H, W) or RGB (H, W, 3); empty for a frame without a mask.
        audio: the sound file.
        parts: the files and folders to be moved into place in this order, so that a clip is whole
            when the last one is there.
        row: the clip's line in the list.
    """

    frames: list[Path]
    masks: list[list[tuple[Path, Paint]]]
    audio: Path
    parts: list[Path]
    row: dict[str, object]


@dataclass(frozen=True)
class Layout:
    """One of AVSBench's trees.

    Attributes:
        folder: its place under the root of the data.
        list_name: its list of clips, a csv file in ``folder``.
        clip_files: ``(name, split, sounding classes, T) -> ClipFiles``.
        constant: it is about one source that sounds in every second.
    """

    folder: str
    list_name: str
    clip_files: Callable[[str, str, list[str], int], ClipFiles]
    constant: bool = False


def write_clip(
    root: Path,
    partial: Path,
    files: ClipFiles,
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    waveform: np.ndarray,
) -> None:
    """Writes a clip elsewhere and moves it into place.

    Args:
        root: the folder of the layout.
        partial: a folder of the clip's own on the same file system, to be used and removed.
        files: what goes where.
        frames: T pairs of a frame (H, W, 3) uint8 RGB and its labels (H, W) uint8.
        waveform: (L,) float32 mono at 16 kHz; stored with 16 bits.
    """
    shutil.rmtree(partial, ignore_errors=True)
    for t, (frame, labels) in enumerate(frames):
        _write_image(partial / files.frames[t], frame)
        for path, paint in files.masks[t]:
            _write_image(partial / path, paint(labels))
    sound = io.BytesIO()
    soundfile.write(sound, waveform, SAMPLE_RATE, "PCM_16", format="WAV")
    write_bytes(partial / files.audio, sound.getvalue())
    for part in files.parts:
        target = root / part
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / part, target)
    shutil.rmtree(partial)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_image(path: Path, picture: np.ndarray) -> None:
    stored = picture[..., ::-1] if picture.ndim == 3 else picture
    _, data = cv2.imencode(path.suffix, stored, _ENCODING[path.suffix])
    write_bytes(path, data.tobytes())


def _binary(labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0, 255, 0).astype(np.uint8)


def _index(labels: np.ndarray) -> np.ndarray:
    return labels


def _colour(labels: np.ndarray) -> np.ndarray:
    return _PALETTE[labels]


def _s4_files(name: str, split: str, sounding: list[str], num_frames: int) -> ClipFiles:
    data, place = Path("s4_data"), Path(split) / sounding[0]
    frames, masks = (data / kind / place / name for kind in ("visual_frames", "gt_masks"))
    audio = data / "audio_wav" / place / f"{name}.wav"
    numbers = range(1, num_frames + 1)
    return ClipFiles(
        frames=[frames / f"{name}_{k}.png" for k in numbers],
        masks=[
            [(masks / f"{name}_{k}.png", _binary)] if k == 1 or split != "train" else []
            for k in numbers
        ],
        audio=audio,
        parts=[frames, masks, audio],
        row={"name": name, "start": 0, "category": sounding[0], "split": split},
    )


def _ms3_files(name: str, split: str, sounding: list[str], num_frames: int) -> ClipFiles:
    data = Path("ms3_data")
    frames, masks = data / "visual_frames" / name, data / "gt_masks" / split / name
    audio = data / "audio_wav" / split / f"{name}.wav"
    numbers = range(1, num_frames + 1)
    return ClipFiles(
        frames=[frames / f"{name}.mp4_{k}.png" for k in numbers],
        masks=[[(masks / f"{name}_{k}.png", _binary)] for k in numbers],
        audio=audio,
        parts=[frames, masks, audio],
        row={"video_id": name, "split": split},
    )


def _avss_files(name: str, split: str, sounding: list[str], num_frames: int) -> ClipFiles:
    subset = "v2" if num_frames != 5 else "v1s" if len(sounding) == 1 else "v1m"
    uid = f"{name}_0_{1000 * num_frames}"
    folder = Path(subset) / uid
    annotated = 1 if subset == "v1s" and split == "train" else num_frames
    return ClipFiles(
        frames=[folder / "frames" / f"{t}.jpg" for t in range(num_frames)],
        masks=[
            [
                (folder / "labels_semantic" / f"{t}.png", _index),
                (folder / "labels_rgb" / f"{t}.png", _colour),
            ]
            if t < annotated
            else []
            for t in range(num_frames)
        ],
        audio=folder / "audio.wav",
        parts=[folder],
        row={
            "vid": name,
            "uid": uid,
            "s_min": 0,
            "s_sec": 0,
            "a_obj": ";".join(sounding),
            "split": split,
            "label": subset,
        },
    )


LAYOUTS = {
    "s4": Layout("Single-source", "s4_meta_data.csv", _s4_files, constant=True),
    "ms3": Layout("Multi-sources", "ms3_meta_data.csv", _ms3_files),
    "avss": Layout("AVSBench_semantic", "metadata.csv", _avss_files),
}
