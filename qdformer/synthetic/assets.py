"""What clips are composed of: cutouts, sounds, noise and backgrounds, from folders or built in.

Every asset belongs to one *source*, its name up to the last dash: takes of one recording, or views
of one thing. A source is used in one split only, as far as there are enough of them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from qdformer.errors import InputError
from qdformer.synthetic.drawings import BACKGROUND_NAMES, CUTOUT_NAMES, DRAWN_CLASSES
from qdformer.synthetic.sounds import NOISE_CLASSES, NOISE_NAMES, SOUND_CLASSES, SOUND_NAMES

Kind = Literal["cutouts", "sounds", "noise", "backgrounds"]

_SUFFIXES = {
    "cutouts": (".png",),
    "sounds": (".wav", ".ogg", ".flac"),
    "noise": (".wav", ".ogg", ".flac"),
    "backgrounds": (".jpg", ".jpeg", ".png"),
}
_BUILT_IN = {
    "cutouts": (DRAWN_CLASSES, CUTOUT_NAMES),
    "sounds": (SOUND_CLASSES, SOUND_NAMES),
    "noise": (NOISE_CLASSES, NOISE_NAMES),
    "backgrounds": (("",), BACKGROUND_NAMES),
}
_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


@dataclass(frozen=True)
class Asset:
    """One cutout, recording or background; built in where ``path`` is None.

    ``group`` is the class, or the kind of noise; ``name`` is the file's name without its suffix.
    """

    kind: Kind
    group: str
    name: str
    path: Path | None = None

    @property
    def source(self) -> str:
        """What the asset was taken from: its group and its name up to the last dash."""
        return f"{self.group}/{self.name.rpartition('-')[0] or self.name}"


@dataclass(frozen=True)
class AssetFolders:
    """Folders of assets; what is None is built in.

    ``cutouts`` (``<class>/*.png``, RGBA) and ``sounds`` (``<class>/*.{wav,ogg,flac}``) are given
    together or not at all; ``noise`` is a folder like ``sounds``, with any names for the classes;
    ``backgrounds`` is a folder of ``*.{jpg,png}``.
    """

    cutouts: Path | None = None
    sounds: Path | None = None
    noise: Path | None = None
    backgrounds: Path | None = None

    @classmethod
    def under(cls, root: Path | None, *given: Path | None) -> "AssetFolders":
        """The folders ``given`` (cutouts, sounds, noise, backgrounds) or else those under ``root``.

        ``root`` must have cutouts and sounds, as the built-in ones are of other classes.
        """
        kinds = ("cutouts", "sounds", "noise", "backgrounds")
        folders = dict(zip(kinds, given, strict=True))
        for kind in kinds:
            if folders[kind] is None and root is not None:
                needed = kind in ("cutouts", "sounds")
                folders[kind] = root / kind if needed or (root / kind).exists() else None
        return cls(**folders)

    def find(self, kind: Kind) -> dict[str, list[Asset]]:
        """The assets of a kind by class; backgrounds are one class without a name.

        Raises:
            InputError: the folder does not exist or has nothing of this kind in it.
        """
        folder = getattr(self, kind)
        if folder is None:
            built_in, names = _BUILT_IN[kind]
            return {group: [Asset(kind, group, name) for name in names] for group in built_in}
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: this folder of {kind} does not exist; check the path")
        if kind == "backgrounds":
            groups = {"": Path(folder)}
        else:
            folders = sorted(path for path in Path(folder).iterdir() if path.is_dir())
            groups = {path.name: path for path in folders if not path.name.startswith(".")}
        if not groups:
            raise InputError(f"{folder}: has no folder in it; {kind} lie in one folder a class")
        return {group: _files(kind, folder, group, path) for group, path in groups.items()}


@dataclass(frozen=True)
class Library:
    """The assets that one split may use; ``cutouts`` and ``sounds`` by class, in label order."""

    cutouts: dict[str, tuple[Asset, ...]]
    sounds: dict[str, tuple[Asset, ...]]
    noise: tuple[Asset, ...]
    backgrounds: tuple[Asset, ...]

    def files(self) -> list[Asset]:
        """The assets that lie in files."""
        groups = [*self.cutouts.values(), *self.sounds.values(), self.noise, self.backgrounds]
        return [asset for group in groups for asset in group if asset.path]


def load_libraries(
    folders: AssetFolders, classes: Sequence[str], splits: Sequence[str]
) -> dict[str, Library]:
    """Lists the assets and shares them out among the splits, without decoding any.

    Args:
        folders: where the assets lie.
        classes: class names in the order of their labels; empty takes every class there is, sorted.
        splits: the splits to share out to, of train, val and test.

    Returns:
        The library of each split. Recordings of one source are in one split. So are cutouts, noise
        and backgrounds where there are as many sources as splits; fewer are shared. Who gets what
        depends on the names alone, not on a seed or on the number of clips.

    Raises:
        InputError: a folder is missing or empty, a class is unknown or lacks cutouts or sounds, or
            it has fewer sources of sound than there are splits.
    """
    if (folders.cutouts is None) != (folders.sounds is None):
        given, lacking = ("cutouts", "sounds") if folders.cutouts else ("sounds", "cutouts")
        raise InputError(
            f"{getattr(folders, given)}: these {given} need a folder of {lacking} for the same "
            f"classes; give --{lacking} too, or neither for the built-in classes"
        )
    cutouts, sounds = folders.find("cutouts"), folders.find("sounds")
    classes = classes or sorted({*cutouts, *sounds})
    for name in classes:
        for kind, found in (("cutouts", cutouts), ("sounds", sounds)):
            if name not in found:
                raise InputError(
                    f"class {name!r} has no {kind}: {getattr(folders, kind) or 'the built-in set'} "
                    f"has them for {', '.join(sorted(found))}; add some or leave this class out"
                )
    pictures = {name: _share_out(cutouts[name], splits) for name in classes}
    recordings = {name: _share_out(sounds[name], splits) for name in classes}
    noise, backgrounds = (
        _share_out([asset for group in folders.find(kind).values() for asset in group], splits)
        for kind in ("noise", "backgrounds")
    )
    return {
        split: Library(
            cutouts={name: pictures[name][split] for name in classes},
            sounds={name: recordings[name][split] for name in classes},
            noise=noise[split],
            backgrounds=backgrounds[split],
        )
        for split in splits
    }


def _share_out(assets: list[Asset], splits: Sequence[str]) -> dict[str, tuple[Asset, ...]]:
    sources = sorted({asset.source for asset in assets}, key=_stable_order)
    spare = len(sources) - len(splits)
    if spare < 0 and assets[0].kind == "sounds":
        raise InputError(
            f"class {assets[0].group!r} has recordings of {len(sources)} source(s), but each of "
            f"the {len(splits)} splits needs one of its own; add recordings (a file's name up to "
            "its last dash is its source) or compose fewer splits"
        )
    total = sum(_SHARES[split] for split in splits)
    counts = [1 + int(max(spare, 0) * _SHARES[split] / total) for split in splits[1:]]
    ends = np.cumsum([max(1, len(sources) - sum(counts)), *counts])
    # Where there are fewer sources than splits, the later splits share the last one.
    shares = [sources[:end][-count:] for end, count in zip(ends, [ends[0], *counts], strict=True)]
    return {
        split: tuple(asset for asset in assets if asset.source in share)
        for split, share in zip(splits, shares, strict=True)
    }


def _stable_order(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


def _files(kind: Kind, root: Path, group: str, folder: Path) -> list[Asset]:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in paths if path.suffix.lower() in _SUFFIXES[kind]]
    if not found:
        raise InputError(f"{folder}: has no {kind} in it (files of {', '.join(_SUFFIXES[kind])})")
    return [Asset(kind, group, path.stem, path) for path in found]
