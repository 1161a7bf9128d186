"""Progress bars that are of use in a terminal, in a pipe and in a log file."""

import sys
from typing import Any

from tqdm import tqdm

LOG_INTERVAL = 15.0
"""Seconds between two lines where nobody watches."""


class Progress(tqdm):
    """tqdm's bar; away from a terminal a line with the rest of the time every 15 seconds."""

    def __init__(self, *arguments: Any, **options: Any):
        """Take tqdm's arguments."""
        self._watched = sys.stderr.isatty()
        if not self._watched:
            options |= {"mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL, "ncols": 80}
        super().__init__(*arguments, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Draw the bar, or write a line."""
        if self._watched:
            return super().display(msg, pos)
        self.fp.write(f"{self if msg is None else msg}\n")
        return True
