import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics.cluster import contingency_matrix

from qdformer.evaluation.codeword_classes import codeword_counts, mutual_information, purity

TABLES = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 9))
)
repeatable = settings(deadline=None, derandomize=True, max_examples=60)


def pairs(counts):
    """Codeword and class of each token of a table."""
    cells = np.argwhere(counts >= 0)
    return np.repeat(cells, counts.reshape(-1), axis=0).T


def test_values_by_hand():
    counts = np.array([[3, 1], [0, 4]])
    assert purity(counts) == 7 / 8
    # H(codeword) = ln 2, H(class) = H(3/8, 5/8), H(both) = H(3/8, 1/8, 1/2).
    both, classes = (
        -sum(share * np.log(share) for share in shares)
        for shares in ((3 / 8, 1 / 8, 1 / 2), (3 / 8, 5 / 8))
    )
    expected = 2 * (np.log(2) + classes - both) / (np.log(2) + classes)
    assert mutual_information(*pairs(counts)) == pytest.approx(expected)


def test_one_word_a_class_is_perfect_and_independence_is_nothing():
    perfect, independent = np.diag([3, 1, 8])[[2, 0, 1]], np.outer([1, 3, 0], [2, 4, 2])
    assert purity(perfect) == 1 and mutual_information(*pairs(perfect)) == pytest.approx(1)
    assert purity(independent) == 0.5
    assert mutual_information(*pairs(independent)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", [(0, 0), (5, 0), (0, 5), (3, 4)])
def test_empty_tables(shape):
    counts = np.zeros(shape, np.int64)
    assert purity(counts) == mutual_information(*pairs(counts)) == 0


def test_a_single_word_or_class_tells_nothing():
    for counts in (np.array([[5]]), np.array([[1, 2, 3]]), np.array([[4], [2]])):
        assert mutual_information(*pairs(counts)) == 0


@repeatable
@given(TABLES)
def test_purity_agrees_with_scikit_learns_table(counts):
    words, classes = pairs(counts)
    if len(words):
        expected = contingency_matrix(classes, words).max(axis=0).sum() / len(words)
        assert purity(counts) == pytest.approx(expected)


@repeatable
@given(TABLES)
def test_counting_gives_the_table_back(counts):
    words, classes = pairs(counts)
    table = codeword_counts(words, classes, *counts.shape)
    assert table.dtype == np.int64
    np.testing.assert_array_equal(table, counts)
