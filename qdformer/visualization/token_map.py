"""Audio tokens in the plane, by t-SNE (Fig. 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from .chart import colors, new_figure, picture, say_empty

_PANEL = 520
# Radians from one point of a disc to the next, by which they never line up.
_GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
_MARKERS = {False: ("o", "single source"), True: ("^", "multi source")}


@dataclass(frozen=True)
class TokenCloud:
    """Tokens of one space.

    Attributes:
        vectors: (P, C).
        classes: P names, such as "guitar", or "guitar+man" for the sound of both as it is.
        multi_source: (P,) bool, whether several objects sounded where the token comes from.
    """

    vectors: np.ndarray
    classes: Sequence[str]
    multi_source: np.ndarray


def token_map(
    panels: Mapping[str, TokenCloud], title: str = "Audio tokens, t-SNE", seed: int = 0
) -> np.ndarray:
    """Draw tokens as points: the color is the class, the shape says of how many sources.

    Args:
        panels: by their names, for instance "mixed" and "decomposed". Each is embedded by itself.
        title: a line at the top.
        seed: of the embedding.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    found = {name for cloud in panels.values() for name in cloud.classes}
    # Mixtures come after the classes they are made of.
    names = sorted(found, key=lambda name: (name.count("+"), name))
    color_of = dict(zip(names, colors(len(names))))
    count = max(len(panels), 1)
    in_a_row = max(1, _PANEL * count // (9 * max(map(len, names), default=0) + 60))
    rows = -(-(len(names) + len(_MARKERS)) // in_a_row)
    figure = new_figure(_PANEL * count, _PANEL + 24 * rows, title)
    grid = figure.subplots(1, count, squeeze=False)[0]
    if not panels:
        say_empty(grid[0], "no tokens")
    for axes, (name, cloud) in zip(grid, panels.items()):
        multi_source = np.asarray(cloud.multi_source, bool)
        several = int(multi_source.sum())
        counts = f"{len(multi_source) - several} single-, {several} multi-source tokens"
        axes.set_title(f"{name}\n{counts}", fontsize=11)
        if not len(multi_source):
            say_empty(axes, "no tokens")
            continue
        points = embed(cloud.vectors, seed)
        shades = np.array([color_of[name] for name in cloud.classes])
        for several, (marker, _) in _MARKERS.items():
            chosen = multi_source == several
            axes.scatter(
                *points[chosen].T, c=shades[chosen], marker=marker, s=32, edgecolors="black",
                linewidths=0.4, alpha=0.8,
            )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("t-SNE 1 (no unit)")
        axes.set_ylabel("t-SNE 2 (no unit)")
    handles = [
        Line2D([], [], color=color, marker="s", linestyle="", label=name)
        for name, color in color_of.items()
    ]
    handles += [
        Line2D([], [], color="gray", markeredgecolor="black", marker=marker, linestyle="", label=of)
        for marker, of in _MARKERS.values()
    ]
    columns = -(-len(handles) // rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return picture(figure)


def embed(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Put vectors into the plane so that near ones stay near, by t-SNE.

    Equal vectors, as quantized tokens are, lie on one disc whose area grows with their number,
    instead of all in one point.

    Args:
        vectors: (P, C).
        seed: the same one gives the same places.

    Returns:
        (P, 2) float64, without unit.
    """
    distinct, which = np.unique(np.asarray(vectors, float), axis=0, return_inverse=True)
    which = which.reshape(-1)
    if not len(distinct):
        return np.zeros((0, 2))
    centers = np.zeros((1, 2))
    if len(distinct) > 1:
        centers = TSNE(
            perplexity=np.clip((len(distinct) - 1) / 3, 1, 30),
            init="pca" if distinct.shape[1] > 1 else "random",
            random_state=seed,
        ).fit_transform(distinct)
    order = np.argsort(which, kind="stable")
    firsts = np.concatenate([[0], np.cumsum(np.bincount(which))[:-1]]).astype(int)
    # The how manieth of its equals each vector is.
    rank = np.empty(len(which))
    rank[order] = np.arange(len(which)) - firsts[which[order]]
    extent = max(np.ptp(centers, axis=0).max(), 1)
    radius, angle = 0.012 * extent * np.sqrt(rank), _GOLDEN_ANGLE * rank
    return centers[which] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
