import torch

from qdformer.layers.clamp_finite import LIMIT, clamp_finite


def test_finite_values_are_cut_off_and_others_are_not_numbers():
    values = torch.tensor([0.5, -3e38, 1e15, -torch.inf, torch.nan, 65504], requires_grad=True)
    found = clamp_finite(values)
    expected = torch.tensor([0.5, -LIMIT, LIMIT, torch.nan, torch.nan, 65504])
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    found[[0, 1, 2, 5]].sum().backward()
    assert values.grad.tolist() == [1, 0, 1, 0, 0, 1]
    assert found.square().nansum().isfinite()
    assert clamp_finite(values.half()).dtype == torch.float32
