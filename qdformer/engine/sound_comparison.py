"""What a model says of the same frames with the right sound and with others."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from qdformer.engine.trainer import Trainer
from qdformer.evaluation.language_evaluation import MEASURES
from qdformer.evaluation.registry import find_evaluator
from qdformer.io.atomic_write import write_json
from qdformer.synthetic.variants import register_noise_variants, register_sound_variants

RIGHT = "right sound"
WRONG = ("silence", "noise alone", "another clip's sound")

Comparison = dict[str, dict[str, dict[str, float]]]
"""The metrics of each kind of sound by task and name, the right sound first."""


def compare_sounds(
    cfg, model: nn.Module, snrs: Sequence[float] = (), noise: str = "mixture"
) -> Comparison:
    """Evaluate the first test set with its sound, with wrong ones and under noise.

    Args:
        cfg: names the test set.
        model: a trained model.
        snrs: energy of the sound over that of the noise, dB.
        noise: see :func:`qdformer.synthetic.variants.register_noise_variants`.

    Returns:
        What the evaluators say; the ground truth is that of the right sound everywhere.
    """
    name = cfg.DATASETS.TEST[0]
    names = dict(zip((RIGHT, *WRONG), register_sound_variants(name, cfg.OUTPUT_DIR)))
    under_noise = register_noise_variants(name, snrs, noise)
    names |= {f"noise at {snr:g} dB": variant for snr, variant in zip(snrs, under_noise)}
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = tuple(names.values())
    results = Trainer.test(cfg, model)
    return {sound: results[variant] for sound, variant in names.items()}


def table(comparison: Comparison, dataset: str) -> str:
    """The headline metrics by sound, and what the codebook does with the right one, as text.

    Args:
        comparison: see :func:`compare_sounds`.
        dataset: whose evaluator names the headline metric.
    """
    evaluator = find_evaluator(dataset)
    metrics = [
        name
        for name in (evaluator.primary_metric, "foreground_mIoU", "foreground_share")
        if name in comparison[RIGHT][evaluator.task]
    ]
    lines = [f"{'':24}" + "".join(f"{name:>18}" for name in metrics)]
    for sound, results in comparison.items():
        values = (results[evaluator.task][name] for name in metrics)
        shown = (f"{value:18.1f}" if math.isfinite(value) else f"{'none':>18}" for value in values)
        lines.append(f"{sound:24}" + "".join(shown))
    language = comparison[RIGHT].get("language", {})
    if language:
        lines.append("")
    lines += [f"{meaning:76}{language[key]:8.4g}" for key, meaning in MEASURES.items() if language]
    return "\n".join(lines)


def save(comparison: Comparison, path: Path) -> None:
    """Write the numbers as JSON; what is not a number, because nobody said anything, is null."""
    write_json(path, _finite(comparison))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value if math.isfinite(value) else None
