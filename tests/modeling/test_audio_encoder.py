import pytest
import torch
from torch import nn

from qdformer.modeling.audio_encoder import AudioEncoder
from qdformer.modeling.vggish import VGGish
from qdformer.modeling.yamnet import YAMNet


def make_encoder(**options):
    torch.manual_seed(0)
    network = VGGish(conv_dims=(4, 4, 4, 4), fc_dims=(8, 8), norm="BN")
    return AudioEncoder(network=network, channels=16, patches=True, **options).train()


def learn(encoder):
    """Names of what has a gradient and of what changed in one forward and backward."""
    before = {name: value.clone() for name, value in encoder.network.state_dict().items()}
    encoder(torch.randn(3, 1, 96, 64)).tokens.square().sum().backward()
    trained = {n for n, value in encoder.network.named_parameters() if value.grad is not None}
    state = encoder.network.state_dict()
    return trained, {name for name in before if not torch.equal(before[name], state[name])}


def test_frozen_network_stays_as_it_is():
    encoder = make_encoder(frozen=True)
    assert learn(encoder) == (set(), set())
    assert encoder.projection.weight.grad is not None
    assert encoder.patch_projection.weight.grad is not None


@pytest.mark.parametrize("layers", range(1, 8))
def test_last_layers_of_a_frozen_network_learn(layers):
    """With the normalization behind each, and no statistic before them moves."""
    encoder = make_encoder(frozen=True, trained_layers=layers)
    weighted = (nn.Conv2d, nn.Linear)
    names = [n for n, m in encoder.network.named_modules() if isinstance(m, weighted)]
    leaves = [n for n, m in encoder.network.named_modules() if not any(m.children())]
    expected = set(leaves[leaves.index(names[-layers]) :])
    trained, changed = learn(encoder)
    assert {name.rpartition(".")[0] for name in trained} == {
        name for name in expected if list(encoder.network.get_submodule(name).parameters())
    }
    assert {name.rpartition(".")[0] for name in changed} <= expected
    assert bool(changed) == (layers > 2)  # the two linear layers have no normalization


@pytest.mark.parametrize("layers", [8, 100])
def test_all_layers_may_learn(layers):
    encoder = make_encoder(frozen=True, trained_layers=layers)
    trained, _ = learn(encoder)
    assert trained == {name for name, _ in encoder.network.named_parameters()}


@pytest.mark.parametrize("network, keys", [(VGGish, 1 + 6 * 4), (YAMNet, 1 + 3 * 2)])
def test_patches_are_keys_beside_the_embedding(network, keys):
    torch.manual_seed(0)
    network = network() if network is YAMNet else network(conv_dims=(4,) * 4, fc_dims=(8,))
    log_mel = torch.randn(2, 1, 96, 64) - 3
    for patches, count in ((False, 1), (True, keys)):
        encoder = AudioEncoder(network=network, channels=16, frozen=False, patches=patches)
        audio = encoder.eval()(log_mel)
        assert audio.tokens.shape == (2, count, 16) and audio.position.shape == (count, 16)
        torch.testing.assert_close(audio.tokens[:, 0], encoder.projection(network(log_mel)))
        alone = torch.cat([encoder(example[None]).tokens for example in log_mel])
        torch.testing.assert_close(audio.tokens, alone)
