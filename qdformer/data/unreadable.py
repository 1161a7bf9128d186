"""Training and evaluation go on when a clip cannot be read."""

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qdformer.errors import InputError, one_line_message

logger = logging.getLogger(__name__)


class DropUnreadable:
    """A mapper that gives an empty dict for a clip that cannot be read, and names it.

    In place of None, Detectron2's data sets would take another clip.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], dict[str, Any]], skipped_file: str):
        """
        Args:
            mapper: raises :class:`InputError` for a clip that cannot be read.
            skipped_file: names every skipped clip and why, a line each; several processes share it.
        """
        self.mapper, self.skipped_file = mapper, Path(skipped_file)

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map ``record``, if it can be read."""
        try:
            return self.mapper(record)
        except InputError as error:
            _skip(record["video_id"], error, self.skipped_file)
            return {}


def without_dropped(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A batch of :class:`DropUnreadable`, as a loader collates it: there may be nothing in it."""
    return [clip for clip in clips if clip]


class SkipUnreadable:
    """A mapper that takes another clip, drawn at random, in place of one that cannot be read."""

    def __init__(
        self,
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        records: list[dict[str, Any]],
        skipped_file: str,
    ):
        """
        Args:
            mapper: raises :class:`InputError` for a clip that cannot be read.
            records: the clips to draw from.
            skipped_file: names every skipped clip and why, a line each; several processes share it.
        """
        self.mapper, self.records = mapper, records
        self.skipped_file = Path(skipped_file)

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map ``record``, or the first other one that can be read.

        Raises:
            InputError: no clip of the data set can be read.
        """
        for candidate in self._candidates(record):
            try:
                return self.mapper(candidate)
            except InputError as error:
                _skip(candidate["video_id"], error, self.skipped_file)
        raise InputError(f"no clip can be read; {self.skipped_file} names the reasons")

    def _candidates(self, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
        # All of them, also those that were skipped before: a run that was cut off has forgotten.
        yield record
        others = [other for other in self.records if other["video_id"] != record["video_id"]]
        yield from random.sample(others, len(others))


def _skip(video_id: str, error: InputError, skipped_file: Path) -> None:
    logger.warning("skipped clip %s: %s", video_id, error)
    skipped_file.parent.mkdir(parents=True, exist_ok=True)
    with skipped_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{' '.join(video_id.split())}\t{one_line_message(error)}\n")
