import pytest
import torch

from qdformer.modeling.deformable_encoder import (
    DeformableEncoder,
    cell_centers,
    neighboring_frames,
    padding_mask,
)

SHAPES = {"res3": (8, 8, 8), "res4": (12, 4, 4), "res5": (16, 2, 2)}


def make(window):
    torch.manual_seed(0)
    return DeformableEncoder(
        in_channels={name: shape[0] for name, shape in SHAPES.items()},
        channels=16, layers=2, heads=2, points=2, feedforward=16, temporal_window=window,
    ).eval()  # fmt: skip


def features(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(frames, *shape, generator=generator) for name, shape in SHAPES.items()}


def test_neighbors_stay_within_their_clip():
    assert neighboring_frames([3, 1], 1).tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 3]]
    assert neighboring_frames([2, 1], 0).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("window", [0, 1])
def test_a_frame_reaches_as_far_as_the_window(window):
    """Two layers look 2 * window frames far, and never into another clip."""
    encoder, inputs = make(window), features(7)
    valid, lengths = torch.ones(7, 2), [5, 2]
    before = encoder(inputs, valid, lengths).tokens
    changed = {name: level.clone() for name, level in inputs.items()}
    for level in changed.values():
        level[0] = torch.rand_like(level[0])
    after = encoder(changed, valid, lengths).tokens
    differs = [not torch.allclose(a, b, atol=1e-6) for a, b in zip(before, after)]
    assert differs == [frame <= 2 * window for frame in range(5)] + [False, False]


def test_levels_and_maps():
    visual = make(0)(features(2), torch.ones(2, 2), [2])
    assert visual.shapes == [(8, 8), (4, 4), (2, 2)]
    maps = visual.maps()
    assert [tuple(level.shape) for level in maps] == [
        (2, 16, 8, 8), (2, 16, 4, 4), (2, 16, 2, 2)
    ]  # fmt: skip
    torch.testing.assert_close(maps[1][0, :, 1, 2], visual.tokens[0, 64 + 4 + 2])


def test_cell_centers():
    assert cell_centers(1, 2, torch.zeros(1)).tolist() == [[0.25, 0.5], [0.75, 0.5]]


def test_a_frame_of_less_than_a_cell_is_not_all_padding():
    centers = cell_centers(2, 3, torch.zeros(1))
    hidden = padding_mask(centers, torch.tensor([[0.01, 0.01], [0.01, 1.0], [1.0, 0.6]]))
    assert hidden.tolist() == [
        [False, True, True, True, True, True],
        [False, False, False, True, True, True],
        [False, False, True, False, False, True],
    ]


def test_what_is_padded_has_no_influence():
    encoder, inputs = make(1), features(2)
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.attention.value_proj.bias)  # as a trained one is not zero
    valid = torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    before = encoder(inputs, valid, [2])
    hidden = padding_mask(cell_centers(8, 8, valid), valid)[0]
    assert hidden.view(8, 8).all(1).tolist() == [False] * 4 + [True] * 4
    assert before.padding.shape == (2, 64 + 16 + 4)
    changed = {name: level.clone() for name, level in inputs.items()}
    for level in changed.values():
        level[:, :, level.shape[2] // 2 :] += 1
    first, second = encoder(inputs, valid, [2]), encoder(changed, valid, [2])
    keep = ~first.padding
    torch.testing.assert_close(first.tokens[keep], second.tokens[keep])
