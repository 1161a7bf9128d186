"""Segments every video of an archive once, whatever becomes of some of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qdformer.archive.items import Item
from qdformer.archive.reading import Failure
from qdformer.archive.segmentation import Part
from qdformer.archive.tables import ArchiveTables
from qdformer.progress import Progress

logger = logging.getLogger(__name__)

ATTEMPTS = 2
"""How often a video is tried before it counts as failed."""

Engine = Callable[[Sequence[tuple[int, Item]]], Iterator[Part | Failure]]
"""Segments numbered videos, wherever: parts of each in any order, or its failure."""


def predict_archive(items: Sequence[Item], engine: Engine, tables: ArchiveTables) -> None:
    """Segment the videos that the tables do not have yet.

    However it ends, what is done is in the tables.

    Args:
        items: the archive.
        engine: that does the work.
        tables: that get a row a video.

    Raises:
        InputError: the tables cannot be written, or the engine cannot work at all.
    """
    pending = [(number, item) for number, item in enumerate(items) if not tables.has(item.name)]
    with Progress(total=len(items), initial=len(items) - len(pending), unit="video") as bar:
        try:
            for _ in range(ATTEMPTS):
                failures = _attempt(items, pending, engine, tables, bar)
                pending = [(number, items[number]) for number in sorted(failures)]
                if not pending:
                    break
            for number, item in pending:
                logger.error("%s", failures[number])
                tables.fail(item.name, failures[number], ATTEMPTS)
                bar.update()
        finally:
            tables.flush()


def _attempt(
    items: Sequence[Item],
    pending: Sequence[tuple[int, Item]],
    engine: Engine,
    tables: ArchiveTables,
    bar: Progress,
) -> dict[int, str]:
    """Try each once; returns why those that did not come out did not."""
    failures = {
        number: f"{item.name}: the process that worked on it ended before it did"
        for number, item in pending
    }
    begun: dict[int, dict[int, Part]] = {}
    for event in engine(pending) if pending else ():
        item = items[event.item]
        if isinstance(event, Failure):
            begun.pop(event.item, None)
            text = event.error
            failures[event.item] = text if item.name in text else f"{item.name}: {text}"
            continue
        if event.item not in failures:
            continue  # a second answer, of an engine that lost sight of the first
        parts = begun.setdefault(event.item, {})
        parts[event.number] = event
        last = next((part.number for part in parts.values() if part.last), None)
        if last is not None and len(parts) == last + 1:
            del begun[event.item], failures[event.item]
            tables.add(_row(item, [parts[number] for number in range(last + 1)]))
            bar.update()
    return failures


def _row(item: Item, parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "name": item.name,
        **dataclasses.asdict(parts[0].video),
        "frames": [frame for part in parts for frame in part.frames],
    }
