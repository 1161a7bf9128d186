import numpy as np
import pytest

from qdformer.visualization.codeword_heat_map import class_shares, codeword_heat_map

COUNTS = np.array([[0, 6, 0], [8, 1, 0], [0, 0, 0], [2, 3, 0]])
NAMES = ["man", "guitar", "dog"]


def test_columns_add_up_to_one():
    shares, _ = class_shares(COUNTS)
    np.testing.assert_allclose(shares.sum(axis=0), [1, 1, 0])
    np.testing.assert_allclose(shares[:, 1], [0.6, 0.1, 0, 0.3])


def test_codewords_stand_by_the_class_they_serve_most():
    # 3 has more of man's tokens in number than in share: 2 of 10 against 3 of 10.
    assert class_shares(COUNTS)[1].tolist() == [1, 0, 3]


def test_one_word_a_class_is_a_diagonal():
    words = np.random.default_rng(0).permutation(20)
    counts = np.diag(np.arange(1, 21))[words]
    shares, order = class_shares(counts)
    np.testing.assert_array_equal(shares[order], np.eye(20))


def test_cells_names_and_numbers(draw):
    drawing = draw(codeword_heat_map, COUNTS, NAMES, {"purity": 0.756, "information": 1.0})
    drawing.assert_legible()
    axes, bar = drawing.figure.axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[80, 10, 0], [0, 60, 0], [20, 30, 0]])
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["man (n=10)", "guitar (n=10)", "dog (n=0)"]
    words = [label.get_text() for label in axes.get_yticklabels()]
    assert words == ["1 (n=9)", "0 (n=6)", "3 (n=5)"]
    title = " ".join(drawing.figure.get_suptitle().split())
    assert "purity 0.76, information 1.00" in title
    assert "3 of 4 codewords used by 20 tokens" in title
    assert "%" in bar.get_ylabel()


def test_many_classes_and_codewords_do_not_overlap(draw):
    counts = np.random.default_rng(0).integers(0, 9, (128, 70))
    names = [f"class_{index}-of-a-long-name" for index in range(70)]
    drawing = draw(codeword_heat_map, counts, names, {"purity": 0.1})
    drawing.assert_legible()
    assert len(drawing.figure.axes[0].get_yticks()) == 128
    assert sum("of-a-long-name" in text for text in drawing.texts) == 70


@pytest.mark.parametrize("shape", [(0, 0), (4, 0), (4, 3)])
def test_without_tokens_it_says_so(draw, shape):
    drawing = draw(codeword_heat_map, np.zeros(shape, int), NAMES[: shape[1]], {"purity": 0.0})
    drawing.assert_legible()
    assert "no tokens" in drawing.texts


def test_one_class_and_one_codeword(draw):
    drawing = draw(codeword_heat_map, np.array([[7]]), ["man"], {"purity": 1.0})
    drawing.assert_legible()
    assert drawing.figure.axes[0].images[0].get_array().tolist() == [[100]]
