"""The tables of an archive: ``results-*.parquet``, a row a video, and ``errors.parquet``.

A row of the results has

- ``name``: the video's own in the archive;
- ``height``, ``width``: pixels; ``seconds``: that the file claims to last (null where it does not);
  ``has_sound``: whether a track of sound can be decoded;
- ``frames``: the segmented frames in order, each with ``begin`` and ``end`` in seconds,
  ``local_codes`` and ``global_codes``, the codewords of its N tokens and of its window's (null
  without a codebook), and ``objects``: ``label`` (from 1), ``class``, ``score`` in [0, 1] and
  ``mask``, COCO's compressed run lengths: ``pycocotools.mask.decode({"size": [height, width],
  "counts": mask})``.

A row of the errors has ``name``, ``error``, one sentence, and ``attempts``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qdformer.errors import InputError, make_folder
from qdformer.io.atomic_write import atomic_write, write_json
from qdformer.io.folder_lock import lock_folder

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None


def _results() -> Any:
    codes = pyarrow.list_(pyarrow.int32())
    found = pyarrow.struct(
        [
            ("label", pyarrow.int32()),
            ("class", pyarrow.string()),
            ("score", pyarrow.float32()),
            ("mask", pyarrow.binary()),
        ]
    )
    frame = pyarrow.struct(
        [
            ("begin", pyarrow.float64()),
            ("end", pyarrow.float64()),
            ("objects", pyarrow.list_(found)),
            ("local_codes", codes),
            ("global_codes", codes),
        ]
    )
    return pyarrow.schema(
        [
            ("name", pyarrow.string()),
            ("height", pyarrow.int32()),
            ("width", pyarrow.int32()),
            ("seconds", pyarrow.float64()),
            ("has_sound", pyarrow.bool_()),
            ("frames", pyarrow.list_(frame)),
        ]
    )


def _errors() -> Any:
    return pyarrow.schema(
        [
            ("name", pyarrow.string()),
            ("error", pyarrow.string()),
            ("attempts", pyarrow.int32()),
        ]
    )


_NUMBERED = re.compile(r"results-\d+\.parquet")
_RUN, _RESULTS, _ERRORS = "archive.json", "results-{:05d}.parquet", "errors.parquet"
_ROWS, _SECONDS = 1000, 60.0  # the most rows of a file, and how much work a crash may cost


class ArchiveTables:
    """The tables in a folder, continued where an earlier call ended.

    One process at a time: the folder is this one's until :meth:`close`.

    Attributes:
        done: names with a row of results.
        failed: rows of errors by name; what is taken out of it is tried again.
    """

    def __init__(self, folder: str | Path, run: dict[str, Any]):
        """
        Args:
            folder: is made.
            run: what the rows depend on; a folder is continued only with the same.

        Raises:
            InputError: the folder cannot be written, or holds another run's tables, or pyarrow is
                not installed.
        """
        if pyarrow is None:
            raise InputError(
                "tables are written as parquet; `pip install pyarrow`, or `pip install "
                "'qdformer[archive]'`"
            )
        self.folder = Path(folder)
        make_folder(self.folder, f"the output folder {folder}")
        self._lock = lock_folder(self.folder)
        self._run, self._begun = run, self._is_begun(run)
        parts = [path for path in self.folder.iterdir() if _NUMBERED.fullmatch(path.name)]
        self.done = {row["name"] for part in parts for row in _read(part, ["name"])}
        self._next = 1 + max((int(part.stem.rpartition("-")[2]) for part in parts), default=-1)
        errors = self.folder / _ERRORS
        rows = _read(errors, _errors().names) if errors.exists() else []
        self.failed: dict[str, dict[str, Any]] = {
            row["name"]: row for row in rows if row["name"] not in self.done
        }
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def has(self, name: str) -> bool:
        """Whether a video has a row, of results or of errors."""
        return name in self.done or name in self.failed

    def add(self, row: dict[str, Any]) -> None:
        """Add a video's row of results; it is on the disk a minute later at the latest."""
        assert row["name"] not in self.done, row["name"]
        self.done.add(row["name"])
        self.failed.pop(row["name"], None)
        self._rows.append(row)
        if len(self._rows) >= _ROWS or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def fail(self, name: str, error: str, attempts: int) -> None:
        """Add a video's row of errors."""
        text = error.encode(errors="backslashreplace").decode()
        self.failed[name] = {"name": name, "error": text, "attempts": attempts}

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def flush(self) -> None:
        """Write what is not on the disk.

        Raises:
            InputError: it cannot be written.
        """
        if not self._begun:
            self._write_run()
        if self._rows:
            self._write(_RESULTS.format(self._next), self._rows, _results())
            self._next, self._rows = self._next + 1, []
        if self.failed or (self.folder / _ERRORS).exists():
            self._write(_ERRORS, list(self.failed.values()), _errors())
        self._written = time.monotonic()

    def _write(self, name: str, rows: Sequence[dict[str, Any]], schema: Any) -> None:
        path = self.folder / name
        try:
            with atomic_write(path) as partial:
                table = pyarrow.Table.from_pylist(list(rows), schema)
                pyarrow.parquet.write_table(table, partial, compression="zstd")
        except OSError as error:
            told = error.strerror or str(error).splitlines()[0]
            raise InputError(
                f"{path}: cannot be written ({told}); make room, then run the same command again "
                "to continue"
            ) from error

    def _write_run(self) -> None:
        path = self.folder / _RUN
        try:
            write_json(path, self._run)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); make room, then run the same "
                "command again"
            ) from error
        self._begun = True

    def _is_begun(self, run: dict[str, Any]) -> bool:
        """Whether there are tables of this run; those of another are left alone."""
        path = self.folder / _RUN
        if not path.exists():
            if any(_NUMBERED.fullmatch(other.name) for other in self.folder.iterdir()):
                raise InputError(
                    f"{self.folder}: holds tables, and no {_RUN} beside them tells of which run; "
                    "choose another output folder"
                )
            return False
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read; choose another output folder") from error
        if differing := [key for key, value in run.items() if before.get(key) != value]:
            told = ", ".join(f"{key} {before.get(key)} (now {run[key]})" for key in differing)
            raise InputError(
                f"{self.folder}: holds the tables of a run with {told}; give the same to continue "
                "it, or choose another output folder"
            )
        return True


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    try:
        table = pyarrow.parquet.ParquetFile(path).read(columns=list(columns))
        rows = table.to_pylist()
        if any(key not in row for row in rows[:1] for key in columns):
            raise ValueError(f"it lacks {', '.join(columns)}")
        return rows
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read as a table; remove it, and its videos are done again"
        ) from error
