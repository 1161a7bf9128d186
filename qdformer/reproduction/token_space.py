"""The audio tokens of a trained model and what each stands for (Fig. 6)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from torch import nn

from qdformer.evaluation.codeword_classes import codeword_counts, mutual_information, purity
from qdformer.evaluation.token_collection import match_tokens
from qdformer.visualization.codeword_heat_map import codeword_heat_map
from qdformer.visualization.token_map import TokenCloud, token_map

MOST_POINTS = 1500  # of a panel; t-SNE takes minutes for more


@dataclass(frozen=True)
class TokenSpace:
    """Tokens of some clips.

    Attributes:
        mixed: of each frame with sound, before the decomposition (F'_a), named by all its sources.
        decomposed: of each token that covers an object, named by that object's class.
        quantized: the codewords of the same tokens; the tokens themselves without quantization.
        codes: (P,) codewords of the decomposed tokens; None without quantization.
        classes: (P,) labels of the decomposed tokens.
    """

    mixed: TokenCloud
    decomposed: TokenCloud
    quantized: TokenCloud
    codes: np.ndarray | None
    classes: np.ndarray


@torch.no_grad()
def collect_tokens(
    model: nn.Module, clips: Iterable[dict[str, Any]], metadata: Metadata
) -> TokenSpace:
    """Run clips through a model and keep its tokens.

    Args:
        model: a QDFormer in evaluation mode.
        clips: mapper outputs, none longer than the model's window.
        metadata: of their data set.
    """
    mixed: list[np.ndarray] = []
    fusion: Any = model.fusion
    watch = fusion.register_forward_hook(
        lambda *call: mixed.append(call[-1].tokens.mean(1).cpu().numpy())
    )
    tokens, words, matches = [], [], []
    try:
        for clip in clips:
            output = model([clip])[0]
            match = match_tokens(clip, output, metadata)
            matches.append(match)
            found = match.classes > 0
            where = match.frames[found], match.tokens[found]
            tokens.append(output["local_tokens"].cpu().numpy()[where])
            words.append(output["local_words"].cpu().numpy()[where])
            mixed[-1] = mixed[-1][[bool(labels) for labels in match.sounding]]
    finally:
        watch.remove()
    names = np.array(metadata.stuff_classes)
    heard = [labels for match in matches for labels in match.sounding if labels]
    classes = _join([match.classes[match.classes > 0] for match in matches])
    several = _join([match.multi_source[match.classes > 0] for match in matches])
    coded = all(match.local_codes is not None for match in matches)
    return TokenSpace(
        mixed=TokenCloud(
            np.concatenate(mixed),
            ["+".join(names[list(labels)]) for labels in heard],
            np.array([len(labels) > 1 for labels in heard]),
        ),
        decomposed=TokenCloud(np.concatenate(tokens), list(names[classes]), several.astype(bool)),
        quantized=TokenCloud(np.concatenate(words), list(names[classes]), several.astype(bool)),
        codes=_join([m.local_codes[m.classes > 0] for m in matches if m.local_codes is not None])
        if coded
        else None,
        classes=classes,
    )


def draw_token_space(
    space: TokenSpace, chosen: Sequence[str], metadata: Metadata, num_codes: int
) -> dict[str, np.ndarray]:
    """The panels of Fig. 6, the quantized space beside them, and what each codeword stands for.

    Args:
        space: the tokens.
        chosen: classes to show; none takes those that are in most mixtures, three of them.
        metadata: of the data set.
        num_codes: K.

    Returns:
        (h, w, 3) uint8 RGB pictures by caption.
    """
    chosen = list(chosen) or _most_mixed(space.mixed)
    panels = {
        "before decomposition: one token for all that sounds": _choose(space.mixed, chosen),
        "after decomposition: a token for each source": _choose(space.decomposed, chosen),
    }
    if space.codes is not None:
        panels["after quantization: a disc for each word"] = _choose(space.quantized, chosen)
    pictures = {
        f"Audio tokens of {', '.join(chosen)}, by t-SNE; each panel is embedded by itself": (
            token_map(panels)
        )
    }
    if space.codes is not None:
        classes = list(metadata.stuff_classes)
        counts = codeword_counts(space.codes, space.classes, num_codes, len(classes))[:, 1:]
        measures = {
            "normalized mutual information": mutual_information(space.codes, space.classes),
            "purity": purity(counts),
        }
        picture = codeword_heat_map(counts, classes[1:], measures)
        pictures["What each codeword stands for: the classes of its tokens"] = picture
    return pictures


def _most_mixed(mixed: TokenCloud) -> list[str]:
    parts = Counter(part for name in mixed.classes if "+" in name for part in name.split("+"))
    parts.update({name: 0 for name in mixed.classes if "+" not in name})
    return [name for name, _ in parts.most_common(3)]


def _choose(cloud: TokenCloud, chosen: Sequence[str]) -> TokenCloud:
    """The tokens of the chosen classes and of their mixtures, evenly thinned out."""
    wanted = [i for i, name in enumerate(cloud.classes) if set(name.split("+")) <= set(chosen)]
    wanted = wanted[:: -(-len(wanted) // MOST_POINTS) or 1]
    names = [cloud.classes[i] for i in wanted]
    return TokenCloud(cloud.vectors[wanted], names, cloud.multi_source[wanted])


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)
