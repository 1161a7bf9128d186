"""Keeps the arrays that were made last, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import update_wrapper
from typing import Generic, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)


class ArrayCache(Generic[Key]):
    """A function of one argument that remembers its results, the latest used ones.

    Unlike ``functools.lru_cache`` it counts bytes: arrays read from files can be of any size.
    """

    def __init__(self, make: Callable[[Key], np.ndarray], max_bytes: int):
        """
        Args:
            make: what is remembered; a result must not be changed.
            max_bytes: of all results that are kept. A greater one is made anew at every call.
        """
        self.make, self.max_bytes = make, max_bytes
        self._kept: OrderedDict[Key, np.ndarray] = OrderedDict()
        self._bytes = 0
        update_wrapper(self, make)

    def __call__(self, key: Key) -> np.ndarray:
        """The result for ``key``, made or remembered."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        array = self.make(key)
        if array.nbytes <= self.max_bytes:
            self._kept[key] = array
            self._bytes += array.nbytes
        while self._bytes > self.max_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return array
