"""Published pre-trained weights, made into what ``MODEL.*WEIGHTS`` load."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qdformer.checkpoint.pretrained_sources import MSRA, PRETRAINED_SOURCES, PretrainedSource
from qdformer.checkpoint.weights import read_weights
from qdformer.errors import InputError

PIXEL_STD = (58.395, 57.12, 57.375)
"""MODEL.PIXEL_STD of the configs, red first."""


@dataclass(frozen=True)
class Converted:
    """Weights by the names that they have here.

    Attributes:
        release: the network and whose names the file has.
        weights: name and float32 tensor of everything that the network loads.
        unused: the file's names of what is left out.
        filled: names of what the file lacks and can be without.
        settings: config keys and values in turn that the weights need beside the config.
    """

    release: PretrainedSource
    weights: dict[str, Tensor]
    unused: list[str]
    filled: list[str]
    settings: list[str]

    def report(self, path: str | Path) -> str:
        """What was and was not used, and how to load the file that was written."""
        config = f"--config-file configs/qdformer_{self.release.model}.yaml"
        if self.release.key == "MODEL.AUDIO.WEIGHTS":
            config = "any config"
        return "\n".join(
            [
                f"{self.release}: {len(self.weights)} tensors in {path}",
                f"Not used: {summary(self.unused)}",
                f"Not found: {summary(self.filled)}" + (", filled in" if self.filled else ""),
                f"Load it with {config}: "
                + " ".join([self.release.key, str(path), *self.settings]),
            ]
        )


def convert_weights(path: str, *, model: str = "") -> Converted:
    """Recognises published weights by their names and shapes, and renames them.

    Args:
        path: see :func:`qdformer.checkpoint.weights.read_weights`; nothing in it is executed.
        model: the network that it must be, as in :data:`PRETRAINED_SOURCES`; "" for any of them.

    Raises:
        InputError: the file cannot be read, or is none of the known networks as a whole.
    """
    releases = [release for release in PRETRAINED_SOURCES if model in ("", release.model)]
    if not releases:
        known = ", ".join(dict.fromkeys(release.model for release in PRETRAINED_SOURCES))
        raise InputError(f"--to {model}: no such network; give one of {known}")
    weights = read_weights(path)["model"]
    fit = max((_fit(weights, release) for release in releases), key=_Fit.found)
    if fit.missing or fit.surplus:
        raise InputError(_refusal(path, weights, fit))
    converted = {name: _float32(weights[old]) for name, old in fit.sources.items()} | fit.filled
    settings = list(fit.release.settings)
    if fit.release is MSRA:
        stem = "backbone.stem.conv1.weight"
        # From BGR to RGB that is divided by the deviation. The mean is subtracted in both.
        converted[stem] = converted[stem].flip(1) * torch.tensor(PIXEL_STD).view(1, 3, 1, 1)
        if fit.filled:
            # Statistics of the batch would be divided out a second time.
            settings += ["MODEL.RESNETS.NORM", "FrozenBN"]
    used = set(fit.sources.values())
    return Converted(
        release=fit.release,
        weights=converted,
        unused=[name for name in weights if name not in used],
        filled=list(fit.filled),
        settings=settings,
    )


def summary(names: Collection[str]) -> str:
    """Names, where those that differ in their numbers alone are one with stars and a count."""
    counts = Counter(map(_pattern, names))
    examples = {_pattern(name): name for name in names}
    parts = [f"{key} ({n})" if n > 1 else examples[key] for key, n in counts.items()]
    return ", ".join(parts) or "none"


@dataclass(frozen=True)
class _Fit:
    """How a file's weights and a network's match."""

    release: PretrainedSource
    sources: dict[str, str]  # names in the model of what the file has, and names there
    filled: dict[str, Tensor]
    missing: list[str]
    surplus: list[str]  # names in the file of what belongs to more blocks than the network has

    def found(self) -> float:
        """The part of what must be in the file that is."""
        return len(self.sources) / (len(self.sources) + len(self.missing))


def _fit(weights: dict[str, Any], release: PretrainedSource) -> _Fit:
    shapes, names = release.shapes(), release.names(list(weights))
    sources = {
        name: names[name]
        for name, shape in shapes.items()
        if name in names and tuple(weights[names[name]].shape) == shape
    }
    filled = {
        name: torch.full(shape, value)
        for name, shape in shapes.items()
        for ending, value in release.fills.items()
        if name.endswith(ending) and name not in names
    }
    patterns = set(map(_pattern, shapes))
    return _Fit(
        release=release,
        sources=sources,
        filled=filled,
        missing=[name for name in shapes if name not in sources and name not in filled],
        surplus=[
            old for name, old in names.items() if name not in shapes and _pattern(name) in patterns
        ],
    )


def _refusal(path: str, weights: dict[str, Any], fit: _Fit) -> str:
    if not fit.sources:
        problem = f"none of its {len(weights)} tensors ({_shortened(weights)}) is known"
    elif fit.missing:
        problem = (
            f"closest is {fit.release}, of which {len(fit.missing)} tensors are missing or of "
            f"another shape: {_shortened(fit.missing)}"
        )
    else:
        problem = f"it is larger than {fit.release} by {_shortened(fit.surplus)}"
    known = ", ".join(map(str, PRETRAINED_SOURCES))
    return f"{path}: cannot be converted, {problem}; give the weights of one of {known}"


def _shortened(names: Collection[str]) -> str:
    text = summary(names)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _float32(value: Any) -> Tensor:
    return torch.as_tensor(value).to(torch.float32, copy=True).contiguous()
