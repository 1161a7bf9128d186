"""How many of the training clips have one sounding source (Fig. B)."""

from typing import Any

import numpy as np

from qdformer.data.datasets.avsbench import LAYOUTS
from qdformer.errors import InputError


def subsample_by_source_count(
    records: list[dict[str, Any]], single: float, seed: int
) -> list[dict[str, Any]]:
    """Choose clips so that a given part of them has a single source.

    Args:
        records: of single- and multi-source clips, told apart by their ``subset``.
        single: the part with one source, 0 to 1.
        seed: of the choice.

    Returns:
        As many records for every ``single`` from 0 to 0.5, so that such trainings compare: all that
        can be halved, in the order in which they came.

    Raises:
        InputError: one of the two kinds is missing or too rare for ``single``.
    """
    single_source = {subset for layout in LAYOUTS.values() for subset in layout.single_source}
    kinds: list[list[int]] = [[], []]
    for index, record in enumerate(records):
        kinds[record["subset"] in single_source].append(index)
    total = min(len(kinds[0]), 2 * len(kinds[1]))
    counts = [total - round(single * total), round(single * total)]
    if not total or any(count > len(kind) for count, kind in zip(counts, kinds)):
        raise InputError(
            f"DATALOADER.SINGLE_SOURCE is {single}, but the {len(records)} training clips have "
            f"{len(kinds[1])} with one source and {len(kinds[0])} with several; at least "
            f"{counts[1]} and {counts[0]} are needed"
        )
    rng = np.random.default_rng(seed)
    # Nested: a greater part of one kind holds the clips of a smaller one.
    chosen = [rng.permutation(kind)[:count] for kind, count in zip(kinds, counts)]
    return [records[index] for index in np.sort(np.concatenate(chosen)).astype(int)]
