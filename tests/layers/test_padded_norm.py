import torch
from torch import nn

from qdformer.layers.padded_norm import PaddedGroupNorm, normalize_cells


def corner(frames, height, width):
    """Only the upper left 2 x 3 cells of the first frame are real, all of the others."""
    padding = torch.zeros(frames, height, width, dtype=torch.bool)
    padding[0, 2:] = padding[0, :, 3:] = True
    return padding.flatten(1)


def test_group_norm_is_that_of_the_frame_without_its_padding():
    torch.manual_seed(0)
    norm, maps = PaddedGroupNorm(2, 8), torch.randn(2, 8, 4, 5)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    plain = nn.GroupNorm(2, 8)
    plain.load_state_dict(norm.state_dict())
    result = norm(maps, corner(2, 4, 5))
    torch.testing.assert_close(result[:1, :, :2, :3], plain(maps[:1, :, :2, :3]))
    torch.testing.assert_close(result[1:], plain(maps[1:]))
    torch.testing.assert_close(norm(maps), plain(maps))


def test_batch_norm_counts_real_cells_only():
    torch.manual_seed(0)
    norm, plain = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    tokens, padding = torch.randn(2, 20, 4, requires_grad=True), corner(2, 4, 5)
    result = normalize_cells(norm, tokens, padding)
    torch.testing.assert_close(result[~padding], plain(tokens[~padding]))
    torch.testing.assert_close(norm.running_var, plain.running_var)
    (gradient,) = torch.autograd.grad(result[~padding].square().sum() + result[1].sum(), tokens)
    assert gradient.isfinite().all() and gradient[padding].abs().max() == 0
    trained = norm.eval()
    torch.testing.assert_close(normalize_cells(trained, tokens, padding)[1], trained(tokens[1]))
