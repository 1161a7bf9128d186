"""Global semantic decomposition (Sec. 3.3): fuse a clip's sound with its frames, take it apart."""

import dataclasses

import torch
from torch import Tensor, nn

from qdformer.layers.clip_padding import to_clips, to_frames
from qdformer.layers.position_encoding import sine_position
from qdformer.layers.transformer import CrossAttentionLayer
from qdformer.modeling.audio_semantic_decoder import AudioSemanticDecoder
from qdformer.modeling.audio_tokens import AudioTokens
from qdformer.modeling.visual_tokens import VisualTokens


class AudioVisualFusion(CrossAttentionLayer):
    """Eq. 3: the audio of the whole clip attends to the visual features of all of its frames."""

    def forward(  # type: ignore[override]
        self, audio: AudioTokens, visual: VisualTokens, lengths: list[int]
    ) -> AudioTokens:
        """
        Args:
            audio: F_a.
            visual: F_v.
            lengths: frames of each clip.

        Returns:
            F'_a.
        """
        queries, query_position, _ = audio.of_clips(lengths)
        tokens, padding = to_clips(visual.tokens, lengths)  # (F, S, C) -> (B, T, S, C)
        position, _ = to_clips(visual.position, lengths)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        time = sine_position(steps, tokens.shape[-1])  # (T, C)
        fused = super().forward(
            queries,
            tokens.flatten(1, 2),
            key=(tokens + (position + time[:, None])).flatten(1, 2),
            memory_padding=_memory_padding(visual, padding, lengths),
            query_position=query_position[None],
        )
        fused = fused.unflatten(1, (-1, audio.tokens.shape[1]))  # (B, T * A, C) -> (B, T, A, C)
        return dataclasses.replace(audio, tokens=to_frames(fused, lengths))


def _memory_padding(
    visual: VisualTokens, clip_padding: Tensor | None, lengths: list[int]
) -> Tensor | None:
    """Hide padded cells of real frames and all cells of frames that only fill up a clip."""
    if visual.padding is None and clip_padding is None:
        return None
    hidden = visual.tokens.new_zeros((*visual.tokens.shape[:2],), dtype=torch.bool)
    if visual.padding is not None:
        hidden = visual.padding
    hidden, _ = to_clips(hidden, lengths)  # (F, S) -> (B, T, S)
    if clip_padding is not None:
        hidden = hidden | clip_padding[..., None]
    return hidden.flatten(1)


class GlobalDecomposition(nn.Module):
    """Eq. 4: N single-source tokens g_i out of the clip's multi-source sound."""

    def __init__(self, decoder: AudioSemanticDecoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, prototypes: Tensor, fused_audio: AudioTokens, lengths: list[int]) -> Tensor:
        """
        Args:
            prototypes: (N, C).
            fused_audio: F'_a.
            lengths: frames of each clip.

        Returns:
            g (B, N, C).
        """
        return self.decoder(prototypes, *fused_audio.of_clips(lengths))
