import torch

from qdformer.modeling.recombination import Recombination
from qdformer.modeling.visual_tokens import VisualTokens

CHANNELS, TOKENS = 8, 3


def make_visual(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.rand(frames, 6, CHANNELS, generator=generator)
    return VisualTokens(tokens, torch.zeros_like(tokens), [(2, 3)], None)


def test_equals_eq_5_written_out():
    """Filters, channel-wise products, concatenation over channels, 1 x 1 convolution, BN."""
    torch.manual_seed(0)
    module = Recombination(channels=CHANNELS, num_tokens=TOKENS).eval()
    module.norm.running_mean.uniform_()
    module.norm.running_var.uniform_(0.5, 2)
    tokens, visual, lengths = torch.randn(2, TOKENS, CHANNELS), make_visual(3), [1, 2]
    result = module(tokens, visual, lengths).tokens
    filters = module.filters(tokens)
    for frame, clip in enumerate([0, 1, 1]):
        weighted = [filters[clip, i] * visual.tokens[frame] for i in range(TOKENS)]
        recombined = torch.cat(weighted, dim=-1) @ module.phi.weight.t() + module.phi.bias
        torch.testing.assert_close(result[frame], module.norm(recombined + visual.tokens[frame]))


def test_each_clip_gets_its_own_filters():
    torch.manual_seed(0)
    module = Recombination(channels=CHANNELS, num_tokens=TOKENS).eval()
    tokens, visual = torch.randn(2, TOKENS, CHANNELS), make_visual(4)
    both = module(tokens, visual, [2, 2]).tokens
    changed = tokens.clone()
    changed[1] += 1
    again = module(changed, visual, [2, 2]).tokens
    torch.testing.assert_close(both[:2], again[:2])
    assert not torch.allclose(both[2:], again[2:])
