"""Videos and checkpoints for the predictor, made out of nothing."""

from fractions import Fraction

import av
import torch
from detectron2.modeling import build_model

from qdformer.checkpoint.metadata import run_metadata
from qdformer.checkpoint.weights import write_weights
from qdformer.engine.setup import check_datasets
from tests.samples import small_config


def save_described(path, *overrides):
    """A checkpoint of a network that nobody trained, with the config and classes of tiny_*."""
    cfg = small_config(
        "DATASETS.TRAIN", ("tiny_avss_train",), "DATASETS.TEST", ("tiny_avss_test",),
        "MODEL.QDFORMER.NUM_CLASSES", 3, "INPUT.MIN_SIZE_TEST", 64, "TEST.WINDOW", 5,
        *overrides,
    )  # fmt: skip
    check_datasets(cfg, eval_only=False)
    torch.manual_seed(0)
    built = cfg.clone()
    built.MODEL.DEVICE = "cpu"
    write_weights(build_model(built).state_dict(), path, run_metadata(cfg))
    return path


def write_lossless(path, frames, waveform, rate=1, times=None):
    """A Matroska file whose pictures and sound are what they were, sample by sample.

    ``times``, in seconds, are those of the pictures; by default they follow from the rate.
    """
    unit = Fraction(1, 1000) if times else 1 / Fraction(rate)
    numbers = [round(time / unit) for time in times] if times else range(len(frames))
    with av.open(str(path), "w", format="matroska") as container:
        video = container.add_stream("ffv1", rate=Fraction(rate), time_base=unit)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "bgr0"
        streams = [video]
        if waveform is not None:
            streams.append(container.add_stream("pcm_f32le", rate=16000, layout="mono"))
            sound = av.AudioFrame.from_ndarray(waveform[None], format="flt", layout="mono")
            sound.sample_rate, sound.pts = 16000, 0
            container.mux(streams[1].encode(sound))
        for number, frame in zip(numbers, frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, unit
            container.mux(video.encode(picture))
        for stream in streams:
            container.mux(stream.encode(None))
    return path
