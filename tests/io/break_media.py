"""Throws damaged and hostile files at everything that reads pictures, sounds and log-mel.

    python -m tests.io.break_media --inputs 20000 --seed 0

Every input must end in a result or in an ``InputError`` that names the file. A process of its own
does the reading, with bounded memory: one that dies, or takes too long over an input, is counted
and followed by another, which goes on after that input.
"""

import argparse
import logging
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import qdformer  # noqa: F401
from qdformer.audio.log_mel import clip_log_mel, read_log_mel, read_waveform
from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.errors import InputError
from qdformer.io.image import read_image, read_label_map, read_size
from qdformer.synthetic.asset_readers import check_asset
from qdformer.synthetic.assets import Asset
from tests.io.hostile_media import damaged, hostile_files, put
from tests.io.valid_media import valid_files
from tests.samples import small_config, small_model

MAX_MEMORY = 2**31
"""Bytes that a process may have beyond those it began with."""

MAX_SECONDS = 20
"""For one input, after which the process is ended by an alarm."""

ENDS = ("results", "refusals", "others", "crashes", "hangs")

PALETTE = np.array([[0, 0, 0], [128, 0, 0]], np.uint8)


@dataclass
class Reader:
    """What is tried: it takes the file, checks what it read and has a share of the inputs."""

    kinds: tuple[str, ...]
    read: Callable[[str, Path], None]
    share: float


@dataclass
class Tally:
    """How the inputs of one reader ended."""

    ends: Counter = field(default_factory=Counter)
    growth: int = 0  # MB
    failures: list[str] = field(default_factory=list)


def check_picture(pixels: np.ndarray, channels: tuple[int, ...]) -> None:
    assert pixels.dtype == np.uint8 and pixels.shape[2:] == channels and pixels.size


def check_log_mel(examples, number: int | None = None) -> None:
    assert examples.shape[1:] == (1, 96, 64) and examples.isfinite().all()
    assert len(examples) == number if number else len(examples) > 0


def read_sizes(kind: str, path: Path) -> None:
    assert min(read_size(path)) > 0


def read_pictures(kind: str, path: Path) -> None:
    check_picture(read_image(path), (3,))


def read_labels(label_format: str, kind: str, path: Path) -> None:
    labels = read_label_map(path, label_format, PALETTE)
    check_picture(labels, ())
    allowed = {"binary": {0, 1}, "palette": {0, 1, 255}, "index": range(256)}[label_format]
    assert set(np.unique(labels)) <= set(allowed)


def read_waveforms(kind: str, path: Path) -> None:
    waveform = read_waveform(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1 and waveform.size
    assert np.isfinite(waveform).all()


def read_clip_sounds(kind: str, path: Path) -> None:
    check_log_mel(clip_log_mel(path, 5), 5)


def read_log_mels(kind: str, path: Path) -> None:
    check_log_mel(read_log_mel(path))


def read_assets(kind: str, path: Path) -> None:
    use = {"image": "cutouts", "sound": "sounds"}[kind]
    check_asset(Asset(use, "class", path.stem, path))


@cache
def mappers() -> list[AVSDatasetMapper]:
    sizes = ["INPUT.MIN_SIZE_TRAIN", (48,), "INPUT.MAX_SIZE_TRAIN", 96]
    cfg = small_config(*sizes, "INPUT.AUDIO_GAIN", 6.0, "INPUT.COLOR_JITTER", 0.3)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 48, 96
    return [AVSDatasetMapper(cfg, is_train) for is_train in (True, False)]


def mapped(kind: str, path: Path) -> list[dict]:
    """A clip of which the file is every frame and mask, or the sound, in training and without."""
    images, sounds = valid_files("image"), valid_files("sound")
    frame = put(images["RGB.jpg"], path.with_name("valid.jpg"))
    mask = put(images["labels.png"], path.with_name("valid.png"))
    sound = put(sounds["stereo.wav"], path.with_name("valid.wav"))
    if kind == "image":
        frame = mask = path
    else:
        sound = path
    record = {
        "file_names": [str(frame)] * 2,
        "sem_seg_file_names": [str(mask), None],
        "audio_file_name": str(sound),
        "label_format": "binary",
        "video_id": "clip",
        "height": 16,
        "width": 24,
    }
    return [mapper(record) for mapper in mappers()]


def read_clips(kind: str, path: Path) -> None:
    for clip in mapped(kind, path):
        check_log_mel(clip["audio"], 2)
        assert clip["image"].shape[:2] == (2, 3) and clip["image"].numel()


@cache
def model():
    return small_model().eval()


def segment(kind: str, path: Path) -> None:
    """The network's label maps of a clip with the file in it."""
    clip = mapped(kind, path)[1]
    (result,) = model()([clip])
    assert result["sem_seg"].shape == (2, 16, 24) and result["foreground"].isfinite().all()


IMAGE, SOUND, LOG_MEL = "image", "sound", "log-mel"
READERS = {
    "image sizes": Reader((IMAGE,), read_sizes, 0.1),
    "images": Reader((IMAGE,), read_pictures, 0.2),
    "binary labels": Reader((IMAGE,), partial(read_labels, "binary"), 0.065),
    "index labels": Reader((IMAGE,), partial(read_labels, "index"), 0.065),
    "palette labels": Reader((IMAGE,), partial(read_labels, "palette"), 0.065),
    "sounds": Reader((SOUND,), read_waveforms, 0.2),
    "sounds of clips": Reader((SOUND, LOG_MEL), read_clip_sounds, 0.1),
    "log-mel": Reader((LOG_MEL,), read_log_mels, 0.1),
    "mapper": Reader((IMAGE, SOUND, LOG_MEL), read_clips, 0.05),
    "assets": Reader((IMAGE, SOUND), read_assets, 0.05),
    "mapper and model": Reader((IMAGE, SOUND, LOG_MEL), segment, 0.005),
}


def place_input(kinds: tuple[str, ...], seed: int, number: int, folder: Path) -> tuple[str, Path]:
    """The hand-made files first, then damaged ones; the same for the same seed and number."""
    made = [(kind, *file) for kind in kinds for file in hostile_files(kind).items()]
    if number < len(made):
        kind, name, content = made[number]
    else:
        rng = np.random.default_rng([seed, number])
        kind = kinds[number % len(kinds)]
        name, content = damaged(kind, rng)
    return kind, put(content, folder / name)


def end_of(reader: Reader, kind: str, path: Path) -> str:
    try:
        reader.read(kind, path)
    except InputError as error:
        if isinstance(error.__cause__, MemoryError):
            return f"memory: {error}"
        return "refusals" if str(path) in str(error) else f"nameless: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "results"


def peak_memory() -> int:
    """MB that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def read_many(seed: int, jobs: list[str]) -> None:
    """What the process does: a line for each input of jobs "reader:start:stop"."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY,) * 2)
    start = peak_memory()
    logging.disable()
    warnings.simplefilter("ignore")
    for job in jobs:
        name, first, stop = job.split(":")
        for number in range(int(first), int(stop)):
            with tempfile.TemporaryDirectory() as folder:
                kind, path = place_input(READERS[name].kinds, seed, number, Path(folder))
                signal.alarm(MAX_SECONDS)  # its default action ends even a loop in C
                end = end_of(READERS[name], kind, path)
                signal.alarm(0)
            fields = (name, peak_memory() - start, ascii(path.name), ascii(end)[1:-1])
            print(*fields, sep="\t", flush=True)


def read_all(seed: int, ranges: dict[str, range]) -> Iterator[tuple[str, int, str, str]]:
    """Reads inputs in processes: yields (reader, MB more than at the start, file, end) of each."""
    left = [(name, number) for name, numbers in ranges.items() for number in numbers]
    while left:
        jobs = {}
        for name, number in left:
            jobs.setdefault(name, f"{name}:{number}:{ranges[name].stop}")
        command = [sys.executable, __file__, "--seed", str(seed), "--jobs", *jobs.values()]
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
        ):
            for line in process.stdout:
                name, growth, file, end = line.rstrip("\n").split("\t")
                left.pop(0)
                yield name, int(growth), file, end
            if process.wait() > 0:  # no crash, but a mistake in this script
                said.seek(0)
                raise RuntimeError(said.read())
        if left:
            name, number = left.pop(0)
            hung = process.returncode == -signal.SIGALRM
            yield name, 0, f"input {number}", "hangs" if hung else f"crashes {process.returncode}"


def tally(seed: int, ranges: dict[str, range], progress: tqdm | None = None) -> dict[str, Tally]:
    """Reads inputs and counts how they end, for each reader."""
    tallies = {name: Tally() for name in ranges}
    for name, growth, file, end in read_all(seed, ranges):
        kind = end.partition(" ")[0]
        tallies[name].ends[kind if kind in ENDS else "others"] += 1
        tallies[name].growth = max(tallies[name].growth, growth)
        if end not in ("results", "refusals"):
            tallies[name].failures.append(f"{name}, {file}: {end}")
        if progress is not None:
            progress.update()
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0, help="the same inputs for the same seed")
    parser.add_argument("--jobs", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.jobs:
        read_many(arguments.seed, arguments.jobs)
        return 0
    numbers = {name: round(reader.share * arguments.inputs) for name, reader in READERS.items()}
    tallies = {}
    with tqdm(total=sum(numbers.values()), unit="input") as progress:
        for name, number in numbers.items():  # one process each, so that each has a peak of its own
            progress.set_description(name)
            tallies |= tally(arguments.seed, {name: range(number)}, progress)
    columns = ("inputs", *ENDS, "MB more")
    print(f"{'':16}" + "".join(f"{column:>10}" for column in columns))
    for name, counts in tallies.items():
        row = (numbers[name], *(counts.ends[end] for end in ENDS), counts.growth)
        print(f"{name:16}" + "".join(f"{value:10,}" for value in row))
    failures = [failure for counts in tallies.values() for failure in counts.failures]
    print(*failures[:50], sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
