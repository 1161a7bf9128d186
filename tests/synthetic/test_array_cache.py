import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qdformer.synthetic.array_cache import ArrayCache


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 12)), st.integers(0, 40))
def test_it_gives_what_the_function_gives_and_keeps_no_more_than_it_may(keys, max_bytes):
    made = []

    def make(key):
        made.append(key)
        return np.full(key, key, np.uint8)

    cached, latest = ArrayCache(make, max_bytes), []
    for key in keys:
        kept = list(latest)
        made.clear()
        assert np.array_equal(cached(key), make(key))
        assert made == ([key] if key in kept else [key, key])
        if key <= max_bytes:
            latest = [key, *(other for other in latest if other != key)]
        while sum(latest) > max_bytes:
            latest.pop()
