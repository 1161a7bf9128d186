import math

import torch

from qdformer.layers.position_encoding import sine_position, sine_position_2d


def test_hand_computed_values():
    encoded = sine_position(torch.tensor([0.0, 2.0]), channels=4, temperature=100.0)
    expected = [[0, 1, 0, 1], [math.sin(2), math.cos(2), math.sin(0.2), math.cos(0.2)]]
    torch.testing.assert_close(encoded, torch.tensor(expected, dtype=torch.float32))


def test_all_cells_differ():
    encoded = sine_position_2d(7, 9, torch.ones(1, 2), channels=32)[0]
    distances = torch.cdist(encoded, encoded) + torch.eye(63) * 9
    assert encoded.shape == (63, 32)
    assert distances.min() > 0.01


def test_padding_does_not_change_the_valid_part():
    alone = sine_position_2d(4, 6, torch.ones(1, 2), channels=16).view(4, 6, 16)
    valid = torch.tensor([[4 / 5, 6 / 8]])
    padded = sine_position_2d(5, 8, valid, channels=16).view(5, 8, 16)
    torch.testing.assert_close(padded[:4, :6], alone)
