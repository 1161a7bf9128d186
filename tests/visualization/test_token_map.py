import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from qdformer.visualization.token_map import TokenCloud, embed, token_map


def cloud(names=("man", "guitar", "piano"), each=8, seed=0):
    rng = np.random.default_rng(seed)
    centers = 5 * rng.normal(size=(len(names), 6))
    vectors = np.repeat(centers, each, axis=0) + 0.2 * rng.normal(size=(each * len(names), 6))
    return TokenCloud(vectors, np.repeat(names, each).tolist(), np.arange(len(vectors)) % 4 == 0)


def test_near_vectors_stay_near():
    tokens = cloud()
    points = embed(tokens.vectors)
    assert points.shape == (24, 2) and np.isfinite(points).all()
    assert silhouette_score(points, tokens.classes) > 0.5


def test_the_seed_decides():
    vectors = np.random.default_rng(0).normal(size=(20, 1))
    np.testing.assert_array_equal(embed(vectors, 3), embed(vectors, 3))
    assert (embed(vectors, 3) != embed(vectors, 4)).any()


def test_equal_vectors_lie_beside_each_other():
    words = np.random.default_rng(0).normal(size=(4, 6))
    which = np.arange(40) % 4
    points = embed(words[which])
    assert len(np.unique(points, axis=0)) == 40
    assert silhouette_score(points, which) > 0.5


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_few_vectors(count, channels):
    points = embed(np.random.default_rng(0).normal(size=(count, channels)))
    assert points.shape == (count, 2) and np.isfinite(points).all()


def test_shapes_say_the_sources_and_colors_the_class(draw):
    tokens = cloud()
    mixed = TokenCloud(tokens.vectors, ["guitar+man"] * 24, np.ones(24, bool))
    drawing = draw(token_map, {"mixed": mixed, "decomposed": tokens})
    drawing.assert_legible()
    assert drawing.legend == [
        "guitar", "man", "piano", "guitar+man", "single source", "multi source"
    ]  # fmt: skip
    left, right = drawing.figure.axes
    assert left.get_title() == "mixed\n0 single-, 24 multi-source tokens"
    assert right.get_title() == "decomposed\n18 single-, 6 multi-source tokens"
    single, multi = right.collections
    assert (len(single.get_offsets()), len(multi.get_offsets())) == (18, 6)
    assert len(single.get_paths()[0].vertices) != len(multi.get_paths()[0].vertices)
    faces = np.concatenate([single.get_facecolors(), multi.get_facecolors()])
    assert len(np.unique(faces, axis=0)) == 3
    mixture = left.collections[1].get_facecolors()
    assert not (mixture[0] == faces).all(axis=1).any()


def test_many_classes_do_not_overlap(draw):
    names = [f"class {index} with a name" for index in range(30)]
    drawing = draw(token_map, {"decomposed": cloud(names, each=1)})
    drawing.assert_legible()
    assert set(names) <= set(drawing.legend)


def test_without_tokens_it_says_so(draw):
    empty = TokenCloud(np.zeros((0, 4)), [], np.zeros(0, bool))
    for panels in ({}, {"mixed": empty}):
        drawing = draw(token_map, panels)
        drawing.assert_legible()
        assert "no tokens" in drawing.texts


def test_the_same_tokens_give_the_same_picture():
    tokens = cloud(("man",))
    first = token_map({"mixed": tokens})
    np.testing.assert_array_equal(token_map({"mixed": tokens}), first)
