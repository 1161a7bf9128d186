"""One machine: processes that decode, and the network in this one."""

from __future__ import annotations

import importlib
import multiprocessing
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any

import cv2
import torch
from detectron2.config import CfgNode

from qdformer.archive.items import Item
from qdformer.archive.reading import Failure, WindowOfItem, read_item
from qdformer.archive.segmentation import Part, segment_windows
from qdformer.predictor import AudioVisualPredictor

_SPAWN = multiprocessing.get_context("spawn")


class LocalEngine:
    """Decodes videos side by side and segments windows of several of them at once."""

    def __init__(
        self,
        load: Callable[[], AudioVisualPredictor],
        cfg: CfgNode,
        *,
        every: float,
        workers: int,
        batch: int,
        imports: Sequence[str] = (),
    ):
        """
        Args:
            load: makes the model, while the first videos are decoded.
            cfg: of the model.
            every: seconds between segmented frames.
            workers: processes that decode.
            batch: the most windows that go through the network together.
            imports: modules that the processes import first.
        """
        self.load, self.cfg, self.every = load, cfg, every
        self.workers, self.batch, self.imports = workers, batch, tuple(imports)

    def __call__(self, items: Sequence[tuple[int, Item]]) -> Iterator[Part | Failure]:
        """See :data:`.prediction.Engine`."""
        # Some windows ahead, so that the network seldom waits.
        feed = _Feed(iter(items), queue.Queue(maxsize=2 * self.batch))
        readers = [
            threading.Thread(target=feed.fill, args=(self._worker,), daemon=True)
            for _ in range(min(self.workers, len(items)))
        ]
        for reader in readers:
            reader.start()
        try:
            predictor, reading = self._predictor, len(readers)
            while reading:
                events = [feed.read.get()]
                while len(events) < self.batch and not feed.read.empty():
                    events.append(feed.read.get())
                windows = [event for event in events if isinstance(event, WindowOfItem)]
                if windows:
                    yield from segment_windows(predictor, windows, self.every)
                yield from (event for event in events if isinstance(event, Failure))
                for event in events:
                    if isinstance(event, Exception):
                        raise event
                reading -= events.count(None)
        finally:
            feed.stop()

    @cached_property
    def _predictor(self) -> AudioVisualPredictor:
        return self.load()

    def _worker(self) -> _Worker:
        return _Worker(self.cfg, self.every, self.imports)


class _Feed:
    """What threads read with a process each, in a queue: windows, failures, and None at an end."""

    def __init__(self, todo: Iterator[tuple[int, Item]], read: queue.Queue):
        self.todo, self.read = todo, read
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._workers: list[_Worker] = []

    def fill(self, start: Callable[[], _Worker]) -> None:
        """Read videos until there are no more; a process that died is replaced."""
        worker: _Worker | None = None
        try:
            while (given := self._next()) is not None:
                if worker is None or worker.died:
                    worker = start()
                    self._workers.append(worker)
                for event in worker.read(*given):
                    self._put(event)
        except Exception as error:
            self._put(error)
        if worker is not None:
            worker.end()
        self._put(None)

    def stop(self) -> None:
        """End the processes and, with them, what waits for them."""
        self._stopped.set()
        for worker in self._workers:
            worker.end()

    def _next(self) -> tuple[int, Item] | None:
        with self._lock:
            return None if self._stopped.is_set() else next(self.todo, None)

    def _put(self, event: Any) -> None:
        while not self._stopped.is_set():
            try:
                return self.read.put(event, timeout=0.1)
            except queue.Full:
                continue


class _Worker:
    """A process that decodes one video after the other."""

    def __init__(self, cfg: CfgNode, every: float, imports: tuple[str, ...]):
        self.connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=_serve, args=(theirs, cfg, every, imports), daemon=True
        )
        self.process.start()
        theirs.close()
        self.died = False

    def read(self, number: int, item: Item) -> Iterator[WindowOfItem | Failure]:
        """The windows of a video, or its failure, also if the process dies over it."""
        try:
            self.connection.send((number, item))
            while True:
                event = self.connection.recv()
                yield event
                if isinstance(event, Failure) or event.last:
                    return
        except (EOFError, OSError):
            self.died = True
            self.process.join()
            code = self.process.exitcode
            yield Failure(number, f"{item.name}: its decoder's process died (exit code {code})")

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, cfg: CfgNode, every: float, imports: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for module in imports:
        importlib.import_module(module)
    while True:
        try:
            number, item = connection.recv()
        except (EOFError, OSError):  # whoever asked is gone
            return
        for event in read_item(number, item, cfg, every):
            connection.send(event)
