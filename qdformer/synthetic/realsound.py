"""RealSound: a benchmark of real recordings that anyone can make from two public repositories.

Recordings are those of ESC-50 (K. J. Piczak, ACM MM 2015; CC BY-NC), cutouts those of Noto Emoji
(Apache 2.0). This file is all that the sets depend on: whoever composes a version of it gets the
same clips.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qdformer.errors import InputError
from qdformer.synthetic.assets import Asset, AssetFolders, Kind, Library
from qdformer.synthetic.composer import ComposeOptions, compose

VERSION = 1

SPLITS = {"train": (1, 2, 3), "val": (4,), "test": (5,)}
"""Folds of ESC-50, which keep takes of one recording together."""

CLASSES = {
    "airplane": ("airplane", "1f6e9", "2708"),
    "car": ("car_horn", "1f697", "1f699"),
    "cat": ("cat", "1f408", "1f431"),
    "church_bells": ("church_bells", "1f514", "26ea"),
    "clapping": ("clapping", "1f44f", "1f44f_1f3fd"),
    "clock_alarm": ("clock_alarm", "23f0"),
    "clock_tick": ("clock_tick", "1f570"),
    "cow": ("cow", "1f404", "1f42e"),
    "crow": ("crow", "1f426", "1f426_200d_2b1b"),
    "crying_baby": ("crying_baby", "1f476", "1f476_1f3fd"),
    "dog": ("dog", "1f415", "1f415_200d_1f9ba", "1f429", "1f436"),
    "fireworks": ("fireworks", "1f386"),
    "frog": ("frog", "1f438"),
    "hand_saw": ("hand_saw", "1fa9a"),
    "helicopter": ("helicopter", "1f681"),
    "hen": ("hen", "1f414", "1f425"),
    "insect": ("insects", "1f41d", "1fab0"),
    "laughing": ("laughing", "1f602", "1f606"),
    "pig": ("pig", "1f416", "1f437"),
    "rooster": ("rooster", "1f413"),
    "sheep": ("sheep", "1f40f", "1f411"),
    "siren": ("siren", "1f691", "1f693"),
    "sneezing": ("sneezing", "1f927"),
    "train": ("train", "1f682", "1f686"),
}
"""A class, ESC-50's name of its sounds, and the code points of its cutouts."""

NOISE = (
    *("crackling_fire", "engine", "rain", "sea_waves", "thunderstorm"),
    *("vacuum_cleaner", "washing_machine", "wind"),
)
"""Categories of ESC-50 that nothing in the picture makes."""


@dataclass(frozen=True)
class RealSoundSet:
    """One set of the benchmark.

    Attributes:
        layout: of AVSBench.
        sources: the least and the greatest number of sources in a clip.
        clips: of each split.
    """

    layout: str
    sources: tuple[int, int]
    clips: dict[str, int]


SETS = {
    "single": RealSoundSet("s4", (1, 1), {"train": 2000, "val": 200, "test": 200}),
    "multi": RealSoundSet("ms3", (2, 4), {"train": 2000, "val": 200, "test": 200}),
    "avss": RealSoundSet("avss", (1, 3), {"train": 4000, "val": 300, "test": 300}),
}
"""Beside what sounds there are objects that are silent, sources out of sight and noise at 20 dB."""

FRAMES, SIZE, SNR = 5, 64, 20.0


def compose_realsound(
    output: Path, libraries: dict[str, Library], sets: Sequence[str], workers: int
) -> list[Path]:
    """Compose sets of the benchmark, those splits for which there are recordings.

    Args:
        output: a folder, in which each set is a root: ``realsound`` (AVSS), ``realsound_single``
            and ``realsound_multi``.
        libraries: see :func:`libraries_of_clones`.
        sets: of ``SETS``.
        workers: processes; they change no byte.

    Returns:
        The roots.

    Raises:
        InputError: as :func:`~qdformer.synthetic.composer.compose`, or there is no such set.
    """
    if unknown := [name for name in sets if name not in SETS]:
        raise InputError(f"there is no set {unknown[0]!r}; choose among {', '.join(SETS)}")
    roots = []
    for name in sets:
        chosen = SETS[name]
        options = ComposeOptions(
            output=output / ("realsound" if name == "avss" else f"realsound_{name}"),
            layouts=(chosen.layout,),
            frames=FRAMES,
            size=SIZE,
            sources=chosen.sources,
            clips={split: chosen.clips[split] for split in libraries},
            snr=SNR,
            seed=VERSION,
            workers=workers,
        )
        roots.append(compose(options, libraries))
    return roots


def libraries_of_clones(esc50: Path, emoji: Path) -> dict[str, Library]:
    """What each split may use, from clones of github.com/karolpiczak/ESC-50 and
    github.com/googlefonts/noto-emoji.

    Raises:
        InputError: a folder or a file that the benchmark needs is not there.
    """
    recordings: dict[str, list[Path]] = {}
    meta = _existing(esc50 / "meta" / "esc50.csv")
    header, *rows = (line.split(",") for line in meta.read_text(encoding="utf-8").splitlines())
    for row in rows:
        fields = dict(zip(header, row))
        if {"filename", "category"} - fields.keys():
            raise InputError(f"{meta}: lacks filename or category; give a clone of ESC-50")
        path = esc50 / "audio" / fields["filename"]
        recordings.setdefault(fields["category"], []).append(path)
    cutouts = {
        name: [_existing(emoji / "png" / "128" / f"emoji_u{code}.png") for code in codes]
        for name, (_, *codes) in CLASSES.items()
    }
    sounds = {name: recordings.get(category, []) for name, (category, *_) in CLASSES.items()}
    return _libraries(sounds, cutouts, {name: recordings.get(name, []) for name in NOISE})


def libraries_of_tree(root: Path) -> dict[str, Library]:
    """The same from a folder of ``sounds/``, ``cutouts/`` and ``noise/`` with a folder a class.

    Raises:
        InputError: as :func:`libraries_of_clones`.
    """

    def files(kind: str, name: str) -> list[Path]:
        return sorted(_existing(root / kind / name).iterdir())

    return _libraries(
        {name: files("sounds", name) for name in CLASSES},
        {name: files("cutouts", name) for name in CLASSES},
        {name: files("noise", name) for name in NOISE},
    )


def _libraries(
    sounds: dict[str, list[Path]], cutouts: dict[str, list[Path]], noise: dict[str, list[Path]]
) -> dict[str, Library]:
    backgrounds = tuple(AssetFolders().find("backgrounds")[""])
    libraries = {}
    for split, folds in SPLITS.items():
        heard = {name: _of_folds(paths, folds) for name, paths in sounds.items()}
        behind = [path for paths in noise.values() for path in _of_folds(paths, folds)]
        if not any(heard.values()):
            continue  # the test fold may be somebody else's
        if missing := [name for name, paths in heard.items() if not paths]:
            raise InputError(
                f"{split}: no recordings of {', '.join(missing)} in folds {folds}; the names of "
                "recordings begin with their fold, as in ESC-50"
            )
        if not behind:
            raise InputError(f"{split}: no noise in folds {folds}; give {', '.join(NOISE)}")
        libraries[split] = Library(
            cutouts={name: _assets("cutouts", name, paths) for name, paths in cutouts.items()},
            sounds={name: _assets("sounds", name, paths) for name, paths in heard.items()},
            noise=_assets("noise", "", behind),
            backgrounds=backgrounds,
        )
    return libraries


def _of_folds(paths: list[Path], folds: tuple[int, ...]) -> list[Path]:
    return sorted(path for path in paths if path.name.partition("-")[0] in map(str, folds))


def _assets(kind: Kind, group: str, paths: Iterable[Path]) -> tuple[Asset, ...]:
    return tuple(Asset(kind, group, path.stem, path) for path in paths)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: is not there; give clones of ESC-50 and noto-emoji as they are")
    return path
