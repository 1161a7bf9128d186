import copy

import pytest
import torch
from torch import nn

from qdformer.layers.activation_checkpointing import checkpoint_activations


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))


def step(module, features):
    """The output and the gradients of a training step with a seed of its own."""
    torch.manual_seed(1)
    features = features.clone().requires_grad_()
    output = module(features)
    output.square().sum().backward()
    return output.detach(), features.grad, [p.grad for p in module.parameters()]


@pytest.mark.parametrize("steps", [1, 3])
def test_gradients_and_running_statistics_are_the_same(steps):
    plain, features = network(), torch.randn(2, 3, 6, 6)
    again = checkpoint_activations(copy.deepcopy(plain))
    for _ in range(steps):
        torch.testing.assert_close(step(again, features), step(plain, features), rtol=0, atol=0)
    for (name, value), expected in zip(again.state_dict().items(), plain.state_dict().values()):
        assert torch.equal(value, expected), name
    assert again[1].num_batches_tracked == steps


def test_less_is_kept_for_backward():
    def kept(module):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.untyped_storage().nbytes()) or t, lambda t: t
        ):
            module(torch.randn(2, 3, 32, 32))
        return sum(sizes)

    assert kept(checkpoint_activations(network())) < 0.5 * kept(network())


def test_inference_and_copies_are_as_before():
    module = checkpoint_activations(network()).eval()
    features = torch.randn(1, 3, 8, 8)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin[0].weight.zero_()
        assert torch.equal(module(features), network().eval()(features))
        assert not torch.equal(twin(features), module(features))
    assert twin.state_dict().keys() == network().state_dict().keys()
