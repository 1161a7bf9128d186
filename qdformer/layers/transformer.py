"""Transformer parts that the fusion, the audio semantic decoders and the mask decoder share."""

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Two linear layers with a ReLU between them."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int):
        super().__init__(
            nn.Linear(in_channels, hidden_channels),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_channels, out_channels),
        )


class CrossAttentionLayer(nn.Module):
    """h = LN(MCA(query, memory) + query), LN(FFN(h) + h): Eq. 3 of the paper."""

    def __init__(self, *, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.cross_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(channels)
        self.ffn = MLP(channels, feedforward, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        query_position: Tensor | None = None,
        memory_position: Tensor | None = None,
        memory_padding: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (B, Q, C).
            memory: (B, S, C), key and value.
            query_position: (B or 1, Q, C) positional embedding of the queries.
            memory_position: (B or 1, S, C) positional embedding of the keys.
            memory_padding: (B, S) bool, True where the memory is padding.

        Returns:
            (B, Q, C).
        """
        attended, _ = self.cross_attention(
            _add(query, query_position),
            _add(memory, memory_position),
            memory,
            key_padding_mask=memory_padding,
            need_weights=False,
        )
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
        query_position: Tensor | None = None,
        memory_position: Tensor | None = None,
        memory_padding: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`CrossAttentionLayer.forward`."""
        key = _add(query, query_position)
        attended, _ = self.self_attention(key, key, query, need_weights=False)
        query = self.norm0(query + attended)
        return super().forward(query, memory, query_position, memory_position, memory_padding)


class TransformerDecoder(nn.Module):
    """The decoder TrD of Eq. 4, 6 and 7: queries that read a memory, layer by layer."""

    def __init__(self, *, layers: int, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerDecoderLayer(channels=channels, heads=heads, feedforward=feedforward)
            for _ in range(layers)
        )

    def forward(self, query: Tensor, memory: Tensor, **attention) -> list[Tensor]:
        """
        Args:
            query: (B, Q, C).
            memory: (B, S, C).
            attention: positions and padding, see :meth:`CrossAttentionLayer.forward`.

        Returns:
            The queries after each layer, (B, Q, C) each, the last one being the result.
        """
        outputs = []
        for layer in self.layers:
            query = layer(query, memory, **attention)
            outputs.append(query)
        return outputs


def _add(tokens: Tensor, position: Tensor | None) -> Tensor:
    return tokens if position is None else tokens + position
