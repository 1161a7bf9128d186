"""One ONNX file for clips of any length and size, and inference with it by ONNX Runtime."""

import copy
import dataclasses
import functools
import importlib.util
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qdformer.errors import InputError, make_folder
from qdformer.modeling.clip_batch import ClipBatch
from qdformer.modeling.inference import Thresholds, segment_clip
from qdformer.modeling.meta_arch.segmenter import AudioVisualSegmenter
from qdformer.modeling.windows import sliding_window

METADATA = "qdformer"
"""The key of the file's metadata under which lies, as JSON, what the network does not hold."""

EXPORT_PACKAGES = ("onnx", "onnxscript")
KNOWN = "known to work are torch 2.11 with Detectron2's ResNet and timm's Swin"
CODES = ("global_codes", "local_codes")


def export_onnx(
    model: AudioVisualSegmenter, path: str | Path, class_names: Sequence[str] = ()
) -> None:
    """Write a trained segmenter to one file for :class:`OnnxSegmenter`, in single precision.

    The network in it takes the T frames of one clip or window, for any T and any H and W that are
    multiples of the model's ``size_divisibility``: ``images`` (T, 3, H, W) normalized and padded,
    ``log_mel`` (T, 1, 96, 64) and ``valid`` (T, 2), the fraction of height and width that is not
    padding. It gives ``logits`` (T, N, num_classes), ``masks`` (T, N, H/4, W/4) logits, ``boxes``
    (T, N, 4) as :class:`~qdformer.modeling.mask_decoder.Predictions` does and, with a codebook,
    ``global_codes`` and ``local_codes`` (T, N) int64. Writing takes a minute or two.

    Args:
        model: stays as it is.
        path: the file; its folder is made if need be.
        class_names: of the data set, background first.

    Raises:
        InputError: a package is missing, the folder cannot be written, the model was accelerated,
            or it has a part that ONNX cannot express or not for all sizes.
    """
    _need(*EXPORT_PACKAGES)
    if model.accelerated:
        raise InputError(
            "the model was accelerated for inference in bfloat16, which ONNX export does not know; "
            "export it before, or with MODEL.QDFORMER.FAST_INFERENCE False"
        )
    make_folder(Path(path).parent, f"{path}: its folder")
    program = _translate(_Network(model), model.size_divisibility)
    program.model.metadata_props[METADATA] = json.dumps(
        {
            "pixel_mean": model.pixel_mean.flatten().tolist(),
            "pixel_std": model.pixel_std.flatten().tolist(),
            "size_divisibility": model.size_divisibility,
            "thresholds": dataclasses.asdict(model.thresholds),
            "background_class": model.background_class,
            "window": model.window,
            "overlap": model.overlap,
            "class_names": list(class_names),
        }
    )
    program.save(path, external_data=False)


class OnnxSegmenter:
    """An exported segmenter: called with clips, it gives what the model in evaluation mode gives.

    It works on one clip at a time, on as many CPU threads as PyTorch has.

    Attributes:
        class_names: of the data set, background first; empty if the export did not know them.
    """

    def __init__(
        self, path: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        """
        Args:
            path: a file of :func:`export_onnx`.
            providers: of ONNX Runtime, e.g. "CUDAExecutionProvider" where it is installed for GPUs.

        Raises:
            InputError: ONNX Runtime is not installed, or there is no such file.
        """
        _need("onnxruntime")
        self.session = _open_session(path, providers)
        metadata = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in metadata:
            raise InputError(
                f"{path}: an ONNX file, but not of this project; write one with "
                "projects/QDFormer/export_onnx.py"
            )
        settings = json.loads(metadata[METADATA])
        self.pixel_mean, self.pixel_std = (
            torch.tensor(settings[key]).view(3, 1, 1) for key in ("pixel_mean", "pixel_std")
        )
        self.size_divisibility = settings["size_divisibility"]
        self.thresholds = Thresholds(**settings["thresholds"])
        self.background_class = settings["background_class"]
        self.window, self.overlap = settings["window"], settings["overlap"]
        self.class_names = settings["class_names"]

    def __call__(self, clips: list[dict]) -> list[dict[str, Tensor]]:
        """
        Args:
            clips: mapper outputs, see :class:`qdformer.data.dataset_mapper.AVSDatasetMapper`.

        Returns:
            One dict a clip, see
            :meth:`~qdformer.modeling.meta_arch.segmenter.AudioVisualSegmenter.inference`, without
            the tokens and words, of which there are codes only.
        """
        return [sliding_window(self._segment, clip, self.window, self.overlap) for clip in clips]

    def _segment(self, clip: dict) -> dict[str, Any]:
        batch = ClipBatch.collate([clip], self.pixel_mean, self.pixel_std, self.size_divisibility)
        inputs = _network_inputs(batch)
        names = [output.name for output in self.session.get_outputs()]
        found = self.session.run(
            names, {name: value.contiguous().numpy() for name, value in inputs.items()}
        )
        outputs = {name: torch.from_numpy(value) for name, value in zip(names, found)}
        result = segment_clip(
            outputs["logits"],
            outputs["masks"],
            valid=batch.valid[0],
            size=(clip["height"], clip["width"]),
            thresholds=self.thresholds,
            background_class=self.background_class,
        )
        return result | {name: outputs.get(name) for name in CODES}


class _Network(nn.Module):
    """A copy of a segmenter without its ends: tensors of one clip in, tensors out."""

    def __init__(self, model: AudioVisualSegmenter):
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        module: Any
        for module in self.model.modules():
            # timm's Swin marks the windows by slices that torch.export cannot follow.
            if hasattr(module, "get_attn_mask"):
                module.get_attn_mask = functools.partial(_shifted_window_mask, module)

    def forward(self, images: Tensor, log_mel: Tensor, valid: Tensor) -> dict[str, Tensor]:
        length = images.shape[0]
        segmentation = self.model.segment(ClipBatch(images, log_mel, [length], valid))
        predictions = segmentation.predictions
        outputs = {
            field.name: getattr(predictions, field.name)[-1]
            for field in dataclasses.fields(predictions)
        }
        global_tokens, local_tokens = segmentation.global_tokens, segmentation.local_tokens
        if global_tokens is None or global_tokens.codes is None or local_tokens is None:
            return outputs
        codes = global_tokens.codes.expand(length, -1), local_tokens.codes
        return outputs | dict(zip(CODES, codes))


def _network_inputs(batch: ClipBatch) -> dict[str, Tensor]:
    return {"images": batch.images, "log_mel": batch.log_mel, "valid": batch.valid}


def _shifted_window_mask(block: Any, x: Tensor) -> Tensor | None:
    """Which pixels of a window were neighbors before the shift: ``get_attn_mask`` of timm's Swin.

    Args:
        block: with ``window_size`` and ``shift_size``.
        x: (F, h, w, C) shifted and padded to whole windows.

    Returns:
        (windows, area, area), 0 for neighbors and -100 for others; None without shift.
    """
    if not any(block.shift_size):
        return None
    rows, columns = (
        # The last window has, behind what is its own, what was cut off at the other side.
        torch.arange(length).ge(length - window).int() + torch.arange(length).ge(length - shift)
        for length, window, shift in zip(x.shape[1:3], block.window_size, block.shift_size)
    )
    rows, columns = (part.view(-1, n) for part, n in zip((rows, columns), block.window_size))
    parts = (3 * rows[:, None, :, None] + columns[:, None]).flatten(2).flatten(0, 1)
    apart = parts[:, None] != parts[:, :, None]
    return x.new_zeros(apart.shape).masked_fill(apart, -100.0)


def _translate(network: _Network, stride: int) -> torch.onnx.ONNXProgram:
    """Translate the network for symbolic T, H and W."""
    shape = (3, 3, 3 * stride, 4 * stride)
    example = _network_inputs(
        ClipBatch(torch.zeros(shape), torch.zeros(3, 1, 96, 64), [3], torch.ones(3, 2))
    )
    frames, rows, columns = (torch.export.Dim(name) for name in ("T", "rows", "columns"))
    axes = {name: {0: frames} for name in example}
    axes["images"] |= {2: stride * rows, 3: stride * columns}
    # It tells of every node that it leaves as it is.
    logging.getLogger("onnxscript.optimizer").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = list(network(**example))
        try:
            program = torch.onnx.export(
                network,
                tuple(example.values()),
                input_names=list(example),
                output_names=names,
                dynamic_shapes=axes,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise InputError(
                f"the network cannot be written as ONNX by torch {torch.__version__} "
                f"({str(cause).strip().splitlines()[0]}); {KNOWN}"
            ) from error
    assert program is not None
    value: Any
    for value in program.model.graph.inputs:
        if any(isinstance(value.shape[axis], int) for axis in axes[value.name]):
            raise InputError(
                f"the network can only be written as ONNX for {value.name} of shape "
                f"{tuple(value.shape)}, not for clips of any length and size; {KNOWN}"
            )
    return program


def _open_session(path: str | Path, providers: Sequence[str]):
    import onnxruntime

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; write it with projects/QDFormer/export_onnx.py")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Where anything else runs on the machine, spinning costs far more than it gains.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # of its own kinds, on a broken file
        raise InputError(
            f"{path}: cannot be read as ONNX ({type(error).__name__}); write it with "
            "projects/QDFormer/export_onnx.py"
        ) from error


def _need(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f"ONNX needs {' and '.join(missing)}, not installed here; "
            f"`pip install {' '.join(missing)}`"
        )
