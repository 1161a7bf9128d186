import pytest
import torch
from torch import nn

from qdformer.layers.transformer import CrossAttentionLayer, FewQueryAttention, TransformerDecoder


def make():
    torch.manual_seed(0)
    return TransformerDecoder(layers=2, channels=16, heads=4, feedforward=32)


@pytest.mark.parametrize("hidden", [0, 3])
def test_attention_without_projected_memory_is_multi_head_attention(hidden):
    """PyTorch's own module, which projects every key and value, with the same parameters."""
    torch.manual_seed(0)
    few = FewQueryAttention(16, 4, batch_first=True).double()
    nn.init.normal_(few.in_proj_bias)
    reference = nn.MultiheadAttention(16, 4, batch_first=True).double()
    reference.load_state_dict(few.state_dict())
    query, key, value = (torch.rand(2, n, 16, dtype=torch.float64) for n in (3, 7, 7))
    padding = torch.arange(7).expand(2, -1) >= 7 - hidden if hidden else None
    expected, _ = reference(query, key, value, key_padding_mask=padding, need_weights=False)
    actual = few(query, key, value, padding)
    torch.testing.assert_close(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    for parameter, other in zip(few.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


def test_hidden_memory_has_no_influence():
    decoder = make()
    query, memory = torch.rand(2, 3, 16), torch.rand(2, 5, 16)
    padding = torch.tensor([[False] * 3 + [True] * 2] * 2)
    changed = memory.clone()
    changed[:, 3:] = 100.0
    first = decoder(query, memory, memory_padding=padding)[-1]
    torch.testing.assert_close(first, decoder(query, changed, memory_padding=padding)[-1])
    torch.testing.assert_close(first, decoder(query, memory[:, :3])[-1])


def test_order_of_memory_matters_only_through_positions():
    decoder = make()
    query, memory, position = torch.rand(1, 3, 16), torch.rand(1, 5, 16), torch.rand(1, 5, 16)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(
        decoder(query, memory, memory_position=position)[-1],
        decoder(query, memory[:, order], memory_position=position[:, order])[-1],
    )
    moved = decoder(query, memory[:, order], memory_position=position)[-1]
    assert not torch.allclose(decoder(query, memory, memory_position=position)[-1], moved)


def test_fusion_formula():
    """Eq. 3, with one key: attention is then the projected value whatever the query."""
    torch.manual_seed(0)
    layer = CrossAttentionLayer(channels=8, heads=2, feedforward=16)
    query, memory = torch.rand(1, 1, 8), torch.rand(1, 1, 8)
    attention = layer.cross_attention
    value = memory @ attention.in_proj_weight[16:].t() + attention.in_proj_bias[16:]
    hidden = layer.norm1(attention.out_proj(value) + query)
    expected = layer.norm2(layer.ffn(hidden) + hidden)
    torch.testing.assert_close(layer(query, memory, key=memory), expected)


def test_one_output_a_layer():
    outputs = make()(torch.rand(1, 3, 16), torch.rand(1, 5, 16))
    assert len(outputs) == 2
    assert not torch.allclose(outputs[0], outputs[1])
