"""A page that lets one hear and see what each word of a trained codebook stands for."""

from __future__ import annotations

import base64
import heapq
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import soundfile
import torch
from detectron2.data import Metadata
from PIL import Image
from torch import nn

from qdformer.audio.log_mel import clip_waveform
from qdformer.evaluation.codeword_classes import codeword_counts, mutual_information, purity
from qdformer.evaluation.token_collection import match_tokens
from qdformer.io.audio_file import SAMPLE_RATE
from qdformer.io.image import read_image
from qdformer.layers.mask_sampling import masks_at_size

EXAMPLES = 5
"""Seconds of a word that the page lets one hear."""

_SIDE = 128  # pixels of a picture's shorter side, at least
_UNSEEN = 0.35  # brightness of what a token's mask leaves out


@dataclass(frozen=True)
class Example:
    """A second in which a confident token held a word.

    Attributes:
        score: of the token's class, 0 to 1.
        name: of the class that it gave.
        place: the clip and the second.
        picture: (H, W, 3) uint8 RGB, dark but for the token's mask.
        sound: (L,) mono at 16 kHz.
    """

    score: float
    name: str
    place: str
    picture: np.ndarray
    sound: np.ndarray


@dataclass(frozen=True)
class WordUse:
    """What tokens of a data set say.

    Attributes:
        counts: (K, classes) tokens by word and class of the object that they cover; column 0 are
            those that cover none.
        examples: of each word, the most confident first.
    """

    counts: np.ndarray
    examples: dict[int, list[Example]]


@torch.no_grad()
def collect_words(
    model: nn.Module,
    clips: Iterable[tuple[dict[str, Any], float]],
    metadata: Metadata,
    num_codes: int,
    class_threshold: float,
) -> WordUse:
    """Run clips through a model and keep what its words were used for.

    Args:
        model: a QDFormer with a codebook, in evaluation mode.
        clips: mapper outputs, and seconds between their frames.
        metadata: of their data set.
        num_codes: K.
        class_threshold: a token is confident if its likeliest class is at least this probable.
    """
    names = metadata.stuff_classes
    counts = np.zeros((num_codes, len(names)), np.int64)
    best: dict[int, list[tuple[float, int, Example]]] = {}
    order = 0
    for clip, hop in clips:
        output = model([clip])[0]
        match = match_tokens(clip, output, metadata, class_threshold=class_threshold)
        assert match.local_codes is not None
        counts += codeword_counts(match.local_codes, match.classes, num_codes, len(names))
        waveform = clip_waveform(clip["audio_file_name"], len(clip["file_names"]), hop)
        for frame, token, word in zip(match.frames, match.tokens, match.local_codes):
            order += 1
            score = float(output["scores"][frame, token])
            kept = best.setdefault(int(word), [])
            if len(kept) == EXAMPLES and score <= kept[0][0]:
                continue
            mask = masks_at_size(
                output["masks"][frame, token][None],
                clip["image"].shape[-2:],
                (clip["height"], clip["width"]),
            )[0].numpy()
            start = round(frame * hop * SAMPLE_RATE)
            example = Example(
                score=score,
                name=names[int(output["classes"][frame, token])],
                place=f"{clip['video_id']}, second {frame}",
                picture=_lit(read_image(clip["file_names"][frame]), mask > 0.5),
                sound=waveform[start : start + SAMPLE_RATE],
            )
            push = heapq.heappush if len(kept) < EXAMPLES else heapq.heappushpop
            push(kept, (score, -order, example))
    examples = {
        word: [example for _, _, example in sorted(kept, reverse=True)]
        for word, kept in best.items()
    }
    return WordUse(counts, examples)


def write_word_page(use: WordUse, metadata: Metadata, title: str) -> str:
    """The page, whole in one text: words in the order of the class that they stand for.

    Args:
        use: of the words.
        metadata: of the data set.
        title: of the page.
    """
    counts = use.counts[:, 1:]
    words, classes = np.nonzero(counts)
    repeats = counts[words, classes]
    spoken = [word for word in range(len(counts)) if word in use.examples]
    spoken.sort(key=lambda k: (not counts[k].any(), int(counts[k].argmax()), -int(counts[k].max())))
    measures = (
        f"{len(spoken)} of {len(counts)} words are held by confident tokens. Normalized mutual "
        "information of words and classes: "
        f"{mutual_information(words.repeat(repeats), classes.repeat(repeats)):.2f}; purity: "
        f"{purity(counts):.2f}."
    )
    sections = "\n".join(
        _section(word, use.counts[word], use.examples[word], metadata.stuff_classes)
        for word in spoken
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><p>{measures} Each picture is a "
        "second in which a token held the word, lit where its mask is; below it, what was heard."
        f"</p>\n{sections}</html>\n"
    )


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
section{border-top:1px solid #ccc;padding:.5rem 0}h2{font-size:1.1rem;margin:.2rem 0}
div{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:10rem;font-size:.8rem}
img,audio{width:100%}
"""


def _section(word: int, counts: np.ndarray, examples: list[Example], names: list[str]) -> str:
    total = counts.sum()
    shares = ", ".join(
        f"{names[label] if label else 'no object'} {100 * counts[label] / total:.0f} %"
        for label in np.argsort(-counts, kind="stable")[:4]
        if counts[label]
    )
    figures = "".join(map(_figure, examples))
    return (
        f"<section><h2>Word {word}: {html.escape(shares)} (n = {total})</h2>"
        f"<div>{figures}</div></section>"
    )


def _figure(example: Example) -> str:
    picture, sound = io.BytesIO(), io.BytesIO()
    Image.fromarray(example.picture).save(picture, "JPEG", quality=85)
    soundfile.write(sound, example.sound, SAMPLE_RATE, format="OGG")
    caption = html.escape(f"{example.name} {example.score:.2f}, {example.place}")
    return (
        f"<figure><img alt='{caption}' src='data:image/jpeg;base64,{_base64(picture)}'>"
        f"<audio controls preload=none src='data:audio/ogg;base64,{_base64(sound)}'></audio>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _base64(file: io.BytesIO) -> str:
    return base64.b64encode(file.getvalue()).decode()


def _lit(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    lit = np.where(mask[..., None], picture, picture * _UNSEEN).astype(np.uint8)
    factor = -(-_SIDE // min(lit.shape[:2]))
    if factor <= 1:
        return lit
    return cv2.resize(lit, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
