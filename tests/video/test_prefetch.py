import threading

import pytest

from qdformer.video.prefetch import prefetched


@pytest.mark.parametrize("most", [1, 3, 100])
def test_items_come_in_order(most):
    assert list(prefetched(iter(range(20)), most)) == list(range(20))
    assert list(prefetched([], most)) == []


def test_the_other_thread_works_meanwhile_and_no_further_than_it_may():
    made, enough = [], threading.Event()

    def items():
        for number in range(10):
            made.append(number)
            if number == 3:
                enough.set()
            yield number

    found = prefetched(items(), 3)
    assert next(found) == 0
    assert enough.wait(30)  # 1, 2 and 3 are made without anybody asking for them
    assert made == [0, 1, 2, 3]
    assert list(found) == list(range(1, 10))


def test_an_exception_comes_in_its_place():
    def items():
        yield 1
        yield 2
        raise KeyError("x")

    found = prefetched(items(), 5)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(KeyError):
        next(found)


def test_what_is_closed_early_is_cleaned_up():
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    found = prefetched(items(), 2)
    next(found)
    found.close()
    assert closed == [True]
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
