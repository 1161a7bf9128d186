"""Training goes on when a clip cannot be read."""

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qdformer.errors import InputError

logger = logging.getLogger(__name__)


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
        self.unreadable = set()

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map ``record``, or the first other one that can be read.

        Raises:
            InputError: no clip of the data set can be read.
        """
        while True:
            try:
                return self.mapper(record)
            except InputError as error:
                self._skip(record["video_id"], error)
            readable = [r for r in self.records if r["video_id"] not in self.unreadable]
            if not readable:
                raise InputError(f"no clip can be read; {self.skipped_file} names the reasons")
            record = random.choice(readable)

    def _skip(self, video_id: str, error: InputError) -> None:
        logger.warning("skipped clip %s: %s", video_id, error)
        self.unreadable.add(video_id)
        with self.skipped_file.open("a") as file:
            file.write(f"{video_id}\t{error}\n")
