"""The same clips with another sound: what a model that listens must answer differently."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.audio.log_mel import SAMPLE_RATE, check_has_samples
from qdformer.synthetic.noise import draw_noise

SILENCE, NOISE, OTHER_SOUND = "silence", "noise", "other_sound"


def register_sound_variants(name: str, folder: str) -> list[str]:
    """Register a data set again in silence, in white noise, and with each next clip's sound.

    These are the negative sounds of AVSBench-Robust (Li et al., 2025). Frames and ground truth stay
    those of the right sound.

    Args:
        name: a registered data set; the new ones are ``<name>_silence``, ``<name>_noise`` and
            ``<name>_other_sound``.
        folder: where the files of silence and noise go.

    Returns:
        The four names, the given one first.
    """
    records = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name).as_dict()
    Path(folder).mkdir(parents=True, exist_ok=True)
    samples = SAMPLE_RATE * (1 + max(len(record["file_names"]) for record in records))
    negative = {
        SILENCE: np.zeros(samples),
        NOISE: np.random.default_rng(0).uniform(-1, 1, samples),
    }
    variants = {}
    for variant, waveform in negative.items():
        path = str(Path(folder, f"{variant}.wav"))
        soundfile.write(path, waveform, SAMPLE_RATE)
        variants[variant] = [path] * len(records)
    sounds = [record["audio_file_name"] for record in records]
    variants[OTHER_SOUND] = sounds[1:] + sounds[:1]
    for variant, files in variants.items():
        changed = [record | {"audio_file_name": file} for record, file in zip(records, files)]
        _register(f"{name}_{variant}", changed, metadata)
    return [name, *(f"{name}_{variant}" for variant in variants)]


def register_noise_variants(
    name: str, snrs: Sequence[float], source: str | Path = "mixture", seed: int = 0
) -> list[str]:
    """Register a data set once more for each strength of background noise (Fig. 7).

    The noise is mixed in when a clip is read, and is the same at each strength but for its level.

    Args:
        name: a registered data set; the new ones are ``<name>_snr<dB>``, e.g. ``<name>_snr-5``.
        snrs: energy of the sound over that of the noise, dB.
        source: of the noise, see :func:`qdformer.synthetic.noise.draw_noise`.
        seed: another one draws other noise.

    Returns:
        The new names, in the order of ``snrs``.

    Raises:
        InputError: a clip's sound is there as log-mel only, or as :func:`.noise.draw_noise`.
    """
    records = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name).as_dict()
    for record in records:
        check_has_samples(record["audio_file_name"])
    video_ids = [record["video_id"] for record in records]
    variants = {f"{name}_snr{snr:g}": draw_noise(video_ids, snr, source, seed) for snr in snrs}
    for variant, noises in variants.items():
        changed = [record | {"noise": noise} for record, noise in zip(records, noises)]
        _register(variant, changed, metadata)
    return list(variants)


def _register(name: str, records: list[dict[str, Any]], metadata: dict[str, Any]) -> None:
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**{k: v for k, v in metadata.items() if k != "name"})
