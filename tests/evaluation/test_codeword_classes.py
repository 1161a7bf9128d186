import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from qdformer.evaluation.codeword_classes import (
    codeword_counts,
    normalised_mutual_information,
    purity,
)

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
    both = -sum(share * math.log(share) for share in (3 / 8, 1 / 8, 1 / 2))
    classes = -sum(share * math.log(share) for share in (3 / 8, 5 / 8))
    expected = 2 * (math.log(2) + classes - both) / (math.log(2) + classes)
    assert normalised_mutual_information(counts) == pytest.approx(expected)


def test_one_word_a_class_is_perfect_and_independence_is_nothing():
    perfect, independent = np.diag([3, 1, 8])[[2, 0, 1]], np.outer([1, 3, 0], [2, 4, 2])
    assert purity(perfect) == 1 and normalised_mutual_information(perfect) == pytest.approx(1)
    assert purity(independent) == 0.5
    assert normalised_mutual_information(independent) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", [(0, 0), (5, 0), (0, 5), (3, 4)])
def test_empty_tables(shape):
    counts = np.zeros(shape, np.int64)
    assert purity(counts) == normalised_mutual_information(counts) == 0


def test_a_single_word_or_class_tells_nothing():
    for counts in (np.array([[5]]), np.array([[1, 2, 3]]), np.array([[4], [2]])):
        assert normalised_mutual_information(counts) == 0


@repeatable
@given(TABLES)
def test_agrees_with_scikit_learn(counts):
    words, classes = pairs(counts)
    if (counts.any(axis=0).sum() > 1) and (counts.any(axis=1).sum() > 1):
        expected = normalized_mutual_info_score(classes, words)
        assert normalised_mutual_information(counts) == pytest.approx(expected, abs=1e-9)
    if len(words):
        expected = contingency_matrix(classes, words).max(axis=0).sum() / len(words)
        assert purity(counts) == pytest.approx(expected)


@repeatable
@given(TABLES, st.randoms(use_true_random=False))
def test_order_and_unused_codewords_do_not_matter(counts, random):
    rows = random.sample(range(len(counts)), len(counts))
    changed = np.concatenate([counts[rows][:, ::-1], np.zeros((2, counts.shape[1]), int)])
    for number in (purity, normalised_mutual_information):
        assert number(changed) == pytest.approx(number(counts))
        assert 0 <= number(counts) <= 1


@repeatable
@given(TABLES)
def test_counting_gives_the_table_back(counts):
    words, classes = pairs(counts)
    table = codeword_counts(words, classes, *counts.shape)
    assert table.dtype == np.int64
    np.testing.assert_array_equal(table, counts)
