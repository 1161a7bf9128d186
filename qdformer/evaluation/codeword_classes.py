"""How much the codewords of a codebook say about classes, from a table of counts."""

import numpy as np


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


def normalised_mutual_information(counts: np.ndarray) -> float:
    """What codeword and class say about each other, over the mean of their two entropies.

    Args:
        counts: (K, classes) integers.

    Returns:
        A number in [0, 1]: 1 if each tells the other, 0 if they are independent, if there is only
        one codeword or one class to tell, or if the table is empty.
    """
    joint = np.asarray(counts, float)
    words, classes = _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0))
    if not (words and classes):
        return 0.0
    shared = words + classes - _entropy(joint.reshape(-1))
    return float(np.clip(2 * shared / (words + classes), 0, 1))


def _entropy(counts: np.ndarray) -> float:
    """Of the distribution that the counts are of, in nats."""
    counts = counts[counts > 0]
    if len(counts) < 2:
        return 0.0
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
