"""Whether local tokens speak the words of the global ones, and what the words mean (Sec. 3.4)."""

from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor

from qdformer.evaluation.clip_evaluation import ClipEvaluator
from qdformer.evaluation.codeword_classes import codeword_counts, mutual_information, purity
from qdformer.evaluation.token_collection import match_tokens

MEASURES = {
    "global_cosine": "cosine of a global token and its word",
    "local_cosine": "cosine of a local token and its word",
    "global_words": "words in use by global tokens",
    "local_words": "words in use by local tokens",
    "frames_with_repeats": "frames in which two confident tokens hold the same word, %",
    "variance_within_slots": "variance of global tokens that is not between the N slots, %",
    "mutual_information": "normalized mutual information of words and classes",
    "single_source_information": "the same on clips with one source",
    "purity": "local tokens with the most frequent class of their word, %",
}
"""What is measured, with its meaning."""


@dataclass
class _ClipLanguage:
    """One clip: words (T, N), cosines, sums over its frames, words and classes of found objects."""

    global_codes: np.ndarray
    local_codes: np.ndarray
    repeats: list[bool]
    cosines: np.ndarray
    global_sum: np.ndarray
    global_square: float
    found: np.ndarray
    single_source: bool

    @property
    def num_frames(self) -> int:
        return len(self.local_codes)


class LanguageEvaluator(ClipEvaluator):
    """What the codebook does in a trained model; ``MEASURES`` says what is measured.

    A clip that is longer than the network's window has the global tokens of each window. A word
    stands for a class where a confident token's mask covers an object of that class, see
    :func:`~qdformer.evaluation.token_collection.match_tokens`. Of a network without a codebook, or
    an exported one, which gives codes alone, there is nothing to report.
    """

    task = "language"
    unit = "value"  # each has its own
    definition = "Words of global and local tokens: " + "; ".join(
        f"{name}: {meaning}" for name, meaning in MEASURES.items()
    )

    def __init__(
        self, dataset_name: str, output_dir: str | None = None, *, class_threshold: float = 0.1
    ):
        """
        Args:
            dataset_name: a registered data set.
            output_dir: folder for the result, see :class:`ClipEvaluator`.
            class_threshold: a token is confident if its likeliest class is at least this probable.
        """
        super().__init__(dataset_name, output_dir)
        self._class_threshold = class_threshold

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """See :class:`ClipEvaluator`; an empty dict where no clip has words."""
        return super().evaluate() if any(comm.all_gather(bool(self._clips))) else {}

    def _score_clip(self, clip: dict, output: dict) -> _ClipLanguage | None:
        if output["local_codes"] is None or "local_words" not in output:
            return None
        matches = match_tokens(clip, output, self._metadata, class_threshold=self._class_threshold)
        confident = (output["scores"] >= self._class_threshold).cpu().numpy()
        codes = {key: output[f"{key}_codes"].cpu().numpy() for key in ("global", "local")}
        tokens = output["global_tokens"].double().cpu().numpy()  # (T, N, C)
        found = matches.classes > 0
        assert matches.local_codes is not None
        return _ClipLanguage(
            global_codes=codes["global"],
            local_codes=codes["local"],
            repeats=[_repeats(words[sure]) for words, sure in zip(codes["local"], confident)],
            cosines=np.stack([_cosines(output, key) for key in codes]),
            global_sum=tokens.sum(axis=0),
            global_square=float(np.square(tokens).sum()),
            found=np.stack([matches.local_codes[found], matches.classes[found]]),
            single_source=len({label for frame in matches.sounding for label in frame}) == 1,
        )

    def _summarize(
        self, clips: dict[str, _ClipLanguage]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        scores = list(clips.values())
        spoken = {
            key: np.concatenate([getattr(clip, f"{key}_codes").ravel() for clip in scores])
            for key in ("global", "local")
        }
        cosines = [fsum(values) for values in zip(*(clip.cosines.tolist() for clip in scores))]
        words, classes = np.concatenate([clip.found for clip in scores], axis=1)
        single = np.concatenate(
            [np.full(clip.found.shape[1], clip.single_source) for clip in scores]
        )
        num_codes = 1 + max(codes.max() for codes in spoken.values())
        counts = codeword_counts(words, classes, num_codes, len(self._metadata.stuff_classes))
        tokens = len(spoken["local"])
        values: tuple[float, ...] = (
            *(cosine / tokens for cosine in cosines),
            *(len(np.unique(codes)) for codes in spoken.values()),
            100 * float(np.mean([repeated for clip in scores for repeated in clip.repeats])),
            100 * _variance_within_slots(scores),
            mutual_information(words, classes),
            mutual_information(words[single], classes[single]),
            100 * purity(counts),
        )
        return dict(zip(MEASURES, map(float, values), strict=True)), {}


def _repeats(words: np.ndarray) -> bool:
    return len(np.unique(words)) < len(words)


def _cosines(output: dict[str, Tensor], key: str) -> float:
    """The sum over a clip's tokens of their cosine with what they are quantized to."""
    continuous, words = output[f"{key}_tokens"].double(), output[f"{key}_words"].double()
    return float(F.cosine_similarity(continuous, words, dim=-1).sum())


def _variance_within_slots(clips: list[_ClipLanguage]) -> float:
    """Part of the global tokens' variance that is not between the means of the N slots."""
    frames = sum(clip.num_frames for clip in clips)
    mean = np.sum([clip.global_sum for clip in clips], axis=0) / frames  # (N, C)
    square = fsum(clip.global_square for clip in clips) / (frames * len(mean))
    total = square - np.square(mean.mean(axis=0)).sum()
    within = square - np.square(mean).sum() / len(mean)
    return within / total if total > 1e-12 else 0.0
