"""What each codeword stands for: how the tokens of each class spread over the codebook (Fig. 6)."""

from collections.abc import Mapping, Sequence

import numpy as np

from .chart import new_figure, picture, say_empty

_ROW, _COLUMN = 15, 26


def codeword_heat_map(
    counts: np.ndarray,
    class_names: Sequence[str],
    measures: Mapping[str, float],
    title: str = "Codewords by class",
) -> np.ndarray:
    """Draw a table of counts, a column for each class and a row for each codeword that is used.

    A column adds up to 100 %, so that rare classes show as well as frequent ones. Codewords stand
    in the order of the class they serve most, so that one word a class would be a diagonal.

    Args:
        counts: (K, classes) integers, tokens by codeword and class, see
            :func:`qdformer.evaluation.codeword_classes.codeword_counts`.
        class_names: of the columns.
        measures: numbers for the title by their names, such as purity, between 0 and 1.
        title: a line at the top.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    counts = np.asarray(counts)
    shares, order = class_shares(counts)
    numbers = [f"{name} {value:.2f}" for name, value in measures.items()]
    used = f"{len(order)} of {len(counts)} codewords used by {counts.sum()} tokens"
    longest = max(map(len, class_names), default=0)
    width = max(560, _COLUMN * len(class_names) + 220)
    height = _ROW * max(len(order), 8) + 7 * longest + 160
    figure = new_figure(width, height, f"{title}: {', '.join([*numbers, used])}")
    axes = figure.add_subplot()
    if not len(order):
        say_empty(axes, "no tokens")
        return picture(figure)
    image = axes.imshow(100 * shares[order], cmap="Blues", vmin=0, aspect="auto")
    totals = counts.sum(axis=0)
    names = [f"{name} (n={total})" for name, total in zip(class_names, totals, strict=True)]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
    uses = counts.sum(axis=1)
    words = [f"{word} (n={uses[word]})" for word in order]
    axes.set_yticks(range(len(words)), words, fontsize=8)
    axes.set_xlabel("class in the ground truth")
    axes.set_ylabel("codeword")
    figure.colorbar(image, label="share of the class's tokens (%)", fraction=0.04, pad=0.02)
    return picture(figure)


def class_shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the tokens of each class spread over the codewords.

    Args:
        counts: (K, classes) integers.

    Returns:
        (K, classes) shares, whose columns add up to 1, or are 0 for a class without tokens; and the
        codewords in use, in the order of the class in which each has its largest share, the larger
        share first.
    """
    counts = np.asarray(counts)
    shares = counts / counts.sum(axis=0).clip(min=1)
    used = np.flatnonzero(counts.any(axis=1))
    if not len(used):
        return shares, used
    served = shares[used].argmax(axis=1)
    return shares, used[np.lexsort((used, -shares[used].max(axis=1), served))]
