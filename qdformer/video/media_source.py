"""Files with pictures and sound in FFmpeg's hands.

A file is told by its first bytes and read by the one demuxer for them, through a file object of
ours: other containers, and playlists above all, can name further files and addresses to open.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from threading import Lock
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.frame import Frame
from av.stream import Discard, Stream

from qdformer.errors import InputError
from qdformer.io.open_file import MAX_PIXELS, open_file

logger = logging.getLogger(__name__)

_DEMUXERS = {
    re.compile(rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", re.DOTALL): "mov",
    re.compile(rb"\x1a\x45\xdf\xa3"): "matroska",
    re.compile(rb"RIFF....AVI[ X\x19]", re.DOTALL): "avi",
    re.compile(rb"GIF8[79]a"): "gif",
}
FORMATS = "an mp4, mov, mkv, webm, avi or gif file"
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif")
"""Of their names. A file that is named is read whatever its name."""


class MediaSource:
    """A path or a file object that any number of readers open anew, each at its own place.

    Attributes:
        name: for messages, the path or "the file".
    """

    def __init__(self, source: str | os.PathLike | BinaryIO) -> None:
        self.name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the file"
        self._source, self._lock = source, Lock()
        self._told: set[str] = set()

    @contextmanager
    def opened(self) -> Iterator[InputContainer]:
        """The file in FFmpeg's hands, from its beginning.

        Raises:
            InputError: the file cannot be opened or is of another format.
        """
        with ExitStack() as stack:
            try:
                container = self._open(stack)
            except InputError:
                raise
            except Exception as error:
                raise self.undecodable(error) from error
            yield container

    def undecodable(self, error: Exception) -> InputError:
        """What to raise for FFmpeg's many errors, and for what broken headers do to its wrapper."""
        # Of FFmpeg's errors the number and the file, which has no name for it, say nothing.
        text = error.strerror if isinstance(error, av.FFmpegError) else str(error)
        reason = " ".join(text.split()) or type(error).__name__
        return InputError(f"{self.name}: cannot be decoded as a video ({reason}); give {FORMATS}.")

    def _open(self, stack: ExitStack) -> InputContainer:
        file = self._source
        if isinstance(file, (str, os.PathLike)):
            file = stack.enter_context(open_file(os.fspath(file), "video"))
        view = _View(file, self._lock)
        start = view.read(16)
        demuxers = [name for magic, name in _DEMUXERS.items() if magic.match(start)]
        if not demuxers:
            found = "is not a video that is read" if start else "is empty"
            raise InputError(f"{self.name}: {found}; give {FORMATS}.")
        view.seek(0)
        container = av.open(
            view,
            format=demuxers[0],
            options={"max_pixels": str(MAX_PIXELS)},
            metadata_errors="replace",
            io_open=_refuse,
        )
        return stack.enter_context(container)

    def packets(self, container: InputContainer, stream: Stream) -> Iterator[av.Packet]:
        """Those of one stream, for as long as the file can be read; the others are not, any more.

        Args:
            container: what :meth:`opened` gave.
            stream: one of its streams.
        """
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        try:
            # An empty packet would end the decoding.
            yield from (packet for packet in container.demux(stream) if packet.size)
        except Exception as error:  # it ends within a packet, or its structure is damaged
            self.warn_once("breaks off", f"{error}; what follows is left out")

    def decoded(self, container: InputContainer, stream: Any, what: str) -> Iterator[Frame]:
        """The frames of a stream; what cannot be decoded is passed over and logged once.

        Args:
            container: what :meth:`opened` gave; its other streams are no longer read.
            stream: one of its streams that has a codec.
            what: it is, for the log.
        """
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.thread_type = "AUTO"
        lost = 0
        for packet in chain(self.packets(container, stream), [None]):
            try:
                frames = stream.decode(packet)
            except Exception:
                lost += 1
                continue
            yield from frames
        if lost:
            self.warn_once(f"has damaged {what}", f"{lost} packets cannot be decoded")

    def warn_once(self, what: str, details: str) -> None:
        """Log what is wrong with the file, once for each thing."""
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s: %s (%s).", self.name, what, details)


def _refuse(url: str, flags: int, options: dict) -> BinaryIO:
    raise InputError(f"refers to {url}, and nothing but the video itself is opened")


class _View:
    """A file object with a position of its own, as FFmpeg reads it."""

    def __init__(self, file: BinaryIO, lock: Lock) -> None:
        self._file, self._lock, self._position = file, lock, 0
        with lock:
            self._size = file.seek(0, os.SEEK_END)

    def read(self, count: int) -> bytes:
        if self._position >= self._size:
            return b""
        with self._lock:
            self._file.seek(self._position)
            data = self._file.read(count)[:count]
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        # Damaged files ask for such places; an exception would come up at some later call.
        if not 0 <= base + offset < 2**63:
            return -1
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position
