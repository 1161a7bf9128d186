import torch

from qdformer.benchmark.attention_benchmark import attention_inputs
from qdformer.benchmark.options import Workload
from qdformer.layers.ms_deform_attn import ms_deform_attn
from tests.samples import small_config


def test_inputs_are_what_the_encoder_gives():
    arguments, gradient = attention_inputs(small_config(), Workload(frames=2, size=64, batch=2))
    value, shapes, neighbors, centers, offsets, weights = arguments
    assert shapes == [(8, 8), (4, 4), (2, 2)]
    assert value.shape == (4, 84, 4, 8)
    assert neighbors.tolist() == [[0, 0, 1], [0, 1, 1], [2, 2, 3], [2, 3, 3]]
    assert centers.shape == (84, 9, 2)
    # The first query stands on the first cell of its level, before the centers of larger ones.
    assert centers[0, :3].tolist() == [[0, 0], [-0.25, -0.25], [-0.375, -0.375]]
    torch.testing.assert_close(weights.sum((3, 4)), torch.ones(4, 84, 4))
    assert offsets.shape == (*weights.shape, 2)
    assert ms_deform_attn(*arguments).shape == gradient.shape
