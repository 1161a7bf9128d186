"""Transformer parts that the fusion, the audio semantic decoders and the mask decoder share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Two linear layers with a ReLU between them."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int):
        super().__init__(
            nn.Linear(in_channels, hidden_channels),
            # In place it would change a view, whose backward makes copies.
            nn.ReLU(),
            nn.Linear(hidden_channels, out_channels),
        )

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the output."""
        layer = self[2]
        assert isinstance(layer, nn.Linear)
        return layer


class FewQueryAttention(nn.MultiheadAttention):
    """Multi-head attention of a few queries over a long memory, which is read but not projected.

    With q and k of one head, q . (W_k k + b_k) is (W_k^T q) . k plus what is the same for all keys,
    and sum_s a_s (W_v v_s + b_v) is W_v (sum_s a_s v_s) + b_v. So the projections move from the S
    keys and values to the Q queries, and the heads become queries of one attention over C channels.
    """

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            query: (B, Q, C).
            key: (B, S, C).
            value: (B, S, C).
            padding: (B, S) bool, True for keys to leave out.

        Returns:
            (B, Q, C).
        """
        query_weight, key_weight, value_weight = self.in_proj_weight.chunk(3)
        query_bias, _, value_bias = self.in_proj_bias.chunk(3)
        heads = (self.num_heads, self.head_dim)
        query = F.linear(query, query_weight, query_bias).unflatten(-1, heads)
        query = torch.einsum("bqhd,hdc->bhqc", query, key_weight.unflatten(0, heads))
        # As attention of a single head: fused kernels want the heads as an axis.
        read = F.scaled_dot_product_attention(
            query.flatten(1, 2)[:, None],
            key[:, None],
            value[:, None],
            attn_mask=None if padding is None else ~padding[:, None, None],
            scale=self.head_dim**-0.5,
        )[:, 0].unflatten(1, query.shape[1:3])
        attended = torch.einsum("bhqc,hdc->bqhd", read, value_weight.unflatten(0, heads))
        return self.out_proj(attended.flatten(2) + value_bias)


class CrossAttentionLayer(nn.Module):
    """h = LN(MCA(query, memory) + query), LN(FFN(h) + h): Eq. 3 of the paper."""

    def __init__(self, *, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.cross_attention = FewQueryAttention(channels, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(channels)
        self.ffn = MLP(channels, feedforward, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        key: Tensor,
        memory_padding: Tensor | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (B, Q, C).
            memory: (B, S, C).
            key: (B, S, C), the memory with its positional embedding.
            memory_padding: (B, S) bool, True where the memory is padding.
            query_position: (B or 1, Q, C) positional embedding of the queries.

        Returns:
            (B, Q, C).
        """
        placed = _add(query, query_position)
        attended = self.cross_attention(placed, key, memory, memory_padding)
        hidden = self.norm1(query + attended)
        return self.norm2(hidden + self.ffn(hidden))


class TransformerDecoderLayer(CrossAttentionLayer):
    """Self-attention among the queries, then :class:`CrossAttentionLayer`."""

    def __init__(self, *, channels: int, heads: int, feedforward: int):
        super().__init__(channels=channels, heads=heads, feedforward=feedforward)
        self.self_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm0 = nn.LayerNorm(channels)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        key: Tensor,
        memory_padding: Tensor | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`CrossAttentionLayer.forward`."""
        attended, _ = self.self_attention(query, query, query, need_weights=False)
        query = self.norm0(query + attended)
        return super().forward(query, memory, key, memory_padding, query_position)


class TransformerDecoder(nn.Module):
    """The decoder TrD of Eq. 4, 6 and 7: queries that read a memory, layer by layer."""

    def __init__(self, *, layers: int, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerDecoderLayer(channels=channels, heads=heads, feedforward=feedforward)
            for _ in range(layers)
        )

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        memory_position: Tensor | None = None,
        memory_padding: Tensor | None = None,
    ) -> list[Tensor]:
        """
        Args:
            query: (B, Q, C).
            memory: (B, S, C).
            memory_position: (B or 1, S, C) positional embedding of the memory.
            memory_padding: (B, S) bool, True where the memory is padding.

        Returns:
            The queries after each layer, (B, Q, C) each, the last one being the result.
        """
        key, outputs = _add(memory, memory_position), []
        for layer in self.layers:
            query = layer(query, memory, key, memory_padding)
            outputs.append(query)
        return outputs


def _add(tokens: Tensor, position: Tensor | None) -> Tensor:
    return tokens if position is None else tokens + position
