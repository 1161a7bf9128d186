"""How much the codewords of a codebook say about classes, from a table of counts."""

import numpy as np
from sklearn.metrics import normalized_mutual_info_score


def codeword_counts(
    codes: np.ndarray, classes: np.ndarray, num_codes: int, num_classes: int
) -> np.ndarray:
    """Count tokens by codeword and class.

    Args:
        codes: (P,) integers in [0, num_codes).
        classes: (P,) integers in [0, num_classes).
        num_codes: K.
        num_classes: number of columns.

    Returns:
        (K, classes) int64. Tables of different clips add up.
    """
    cells = np.asarray(codes, np.int64) * num_classes + np.asarray(classes, np.int64)
    return np.bincount(cells, minlength=num_codes * num_classes).reshape(num_codes, num_classes)


def purity(counts: np.ndarray) -> float:
    """Share of the tokens that have the most frequent class of their codeword.

    It is at least the share of the most frequent class, which a single codeword reaches, and 1 for
    a codeword to each token; the mutual information beside it shows both.

    Args:
        counts: (K, classes) integers.

    Returns:
        A number in [0, 1], 0 for an empty table.
    """
    counts = np.asarray(counts)
    total = counts.sum()
    return float(counts.max(axis=1, initial=0).sum() / total) if total else 0.0


def mutual_information(words: np.ndarray, classes: np.ndarray) -> float:
    """What word and class say about each other, over the mean of their two entropies.

    Args:
        words: (P,) integers.
        classes: (P,) integers.

    Returns:
        A number in [0, 1]: 1 if each tells the other, 0 if they are independent, if there is only
        one word or one class to tell, or if there are none.
    """
    if min(len(np.unique(words)), len(np.unique(classes))) < 2:
        return 0.0
    return float(normalized_mutual_info_score(classes, words))
