"""The next items of a slow iterator, made while the last ones are used."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def prefetched(items: Iterable[Item], most: int) -> Generator[Item, None, None]:
    """Let one other thread go through ``items``, no further ahead than ``most`` of them.

    They come in their order, and an exception comes in its place. When the iterator is closed early
    the thread ends with the item that it is at.

    Args:
        items: are asked for by that thread alone.
        most: items that wait to be used, at least 1.
    """
    iterator = iter(items)
    thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting = deque(thread.submit(next, iterator, _END) for _ in range(most))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, iterator, _END))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        if hasattr(iterator, "close"):
            iterator.close()
