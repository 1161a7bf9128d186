"""Many machines, or one: Ray Data streams windows from tasks that decode to models in actors."""

from __future__ import annotations

import importlib
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode

from qdformer.archive.items import Item
from qdformer.archive.reading import Failure, read_item
from qdformer.archive.segmentation import Part, segment_windows
from qdformer.errors import InputError
from qdformer.predictor import AudioVisualPredictor

_LARGEST_BLOCK = 16  # videos of a task; with a task that dies they are tried again one by one


class RayEngine:
    """The same work as :class:`.local_engine.LocalEngine`'s on a Ray cluster.

    Every machine needs this package, the weights and the videos under the same paths.
    """

    def __init__(
        self,
        load: Callable[[], AudioVisualPredictor],
        cfg: CfgNode,
        *,
        every: float,
        actors: int,
        batch: int,
        gpus: float = 0.0,
        address: str | None = None,
        imports: Sequence[str] = (),
    ):
        """
        Args:
            load: makes the model, on whatever machine.
            cfg: of the model.
            every: seconds between segmented frames.
            actors: processes that hold the model.
            batch: the most windows that go through the network together.
            gpus: that each actor takes.
            address: of a cluster ("auto" for this machine's); None starts one on this machine.
            imports: modules that all processes import first.

        Raises:
            InputError: Ray is not installed or there is no cluster at the address.
        """
        try:
            import ray.data
        except ImportError as error:
            raise InputError(
                "--engine is ray; `pip install 'ray[data]'`, or take the engine local"
            ) from error
        if not ray.is_initialized():
            try:
                ray.init(
                    address=address,
                    log_to_driver=False,
                    include_dashboard=None if address else False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                told = str(error).splitlines()[0]
                raise InputError(
                    f"--address is {address!r}, where no Ray cluster answers ({told}); give its "
                    "head's host:port, or leave it out to start one on this machine"
                ) from error
        self.load, self.cfg, self.every = load, cfg, every
        self.actors, self.batch, self.gpus = actors, batch, gpus
        self.imports = tuple(imports)

    def __call__(self, items: Sequence[tuple[int, Item]]) -> Iterator[Part | Failure]:
        """See :data:`.prediction.Engine`."""
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # A task that cannot be saved costs its videos, not the call.
        context.max_errored_blocks = -1
        context.execution_options.preserve_order = False
        # What failed once before is alone with whatever it does to its process.
        blocks = max(len(items) // _LARGEST_BLOCK, min(len(items), 4 * self.actors))
        rows = [{"item": pickle.dumps(item)} for item in items]
        read = ray.data.from_items(rows, override_num_blocks=blocks).flat_map(
            _Read(self.cfg, self.every, self.imports),
            num_cpus=1,
            ray_remote_args_fn=_tried_twice,
        )
        parts = read.map_batches(
            _Segment,
            fn_constructor_args=(self.load, self.every, self.imports),
            batch_size=self.batch,
            compute=ray.data.ActorPoolStrategy(size=self.actors),
            num_gpus=self.gpus,
            # None, or actors that move here from a machine that died leave none for reading.
            num_cpus=0,
        )
        for row in parts.iter_rows():
            yield pickle.loads(row["part"])


def _tried_twice() -> dict[str, Any]:
    return {"max_retries": 1}


class _Read:
    def __init__(self, cfg: CfgNode, every: float, imports: tuple[str, ...]):
        self.cfg, self.every, self.imports = cfg, every, imports

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, bytes]]:
        for module in self.imports:
            importlib.import_module(module)
        number, item = pickle.loads(row["item"])
        for event in read_item(number, item, self.cfg, self.every):
            yield {"event": pickle.dumps(event)}


class _Segment:
    def __init__(
        self, load: Callable[[], AudioVisualPredictor], every: float, imports: tuple[str, ...]
    ):
        for module in imports:
            importlib.import_module(module)
        self.predictor, self.every = load(), every

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        events = [pickle.loads(event) for event in batch["event"]]
        parts: list[Part | Failure] = [event for event in events if isinstance(event, Failure)]
        windows = [event for event in events if not isinstance(event, Failure)]
        if windows:
            parts += segment_windows(self.predictor, windows, self.every)
        return {"part": [pickle.dumps(part) for part in parts]}
