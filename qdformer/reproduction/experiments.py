"""The paper's tables and figures as rows: what each changes in one config, and what was published.

Li et al., arXiv 2310.00132, main text and appendix. Published figures are J&F for S4 and MS3 and
mIoU for AVSS, in per cent, on AVSBench with pre-trained weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qdformer.errors import InputError


@dataclass(frozen=True, eq=False)
class Row:
    """A model to train, or a trained one to evaluate in another way.

    Attributes:
        name: as the table says it.
        overrides: config keys and their values.
        published: the paper's figure by layout, ``"s4"``, ``"ms3"`` or ``"avss"``.
        weights_of: the row whose weights are evaluated; "" trains.
        config: a config file of its own; "" for that of the command.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)
    weights_of: str = ""
    config: str = ""


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        title: what it shows.
        rows: its models.
    """

    title: str
    rows: tuple[Row, ...]


def find_experiment(name: str) -> Experiment:
    """The table or figure of that name.

    Raises:
        InputError: there is none.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"{name!r} is no table or figure; known: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def _scan(
    label: str,
    key: str | Sequence[str],
    values: Sequence[Any],
    ms3: Sequence[float | None],
    avss: Sequence[float | None],
) -> tuple[Row, ...]:
    """Rows that differ in one value, which may belong to several keys."""
    keys = [key] if isinstance(key, str) else key
    return tuple(
        Row(
            f"{label} {value}",
            {key: (value,) if key.endswith("MIN_SIZE_TRAIN") else value for key in keys},
            {k: v for k, v in (("ms3", object_jf), ("avss", miou)) if v is not None},
        )
        for value, object_jf, miou in zip(values, ms3, avss, strict=True)
    )


_RESNET = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
}


def _timm(name: str) -> dict[str, str]:
    return {"MODEL.BACKBONE.NAME": "build_timm_backbone", "MODEL.TIMM.NAME": name}


def _parts(quantization: bool, recombination: bool, calibration: bool) -> dict[str, bool]:
    return {
        "MODEL.QDFORMER.QUANTIZATION": quantization,
        "MODEL.QDFORMER.RECOMBINATION": recombination,
        "MODEL.QDFORMER.LOCAL_CALIBRATION": calibration,
    }


_BASELINE = {"MODEL.META_ARCHITECTURE": "QDFormerBaseline"}
_SIZES = ("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST",
          "INPUT.MAX_SIZE_TEST")  # fmt: skip

_FULL = (Row("QDFormer"),)

EXPERIMENTS = {
    "tab1": Experiment(
        "Tab. 1: backbones",
        (
            Row("ResNet-50", _RESNET, {"s4": 81.8, "ms3": 61.6, "avss": 46.6}),
            Row(
                "Swin-T",
                _timm("swin_tiny_patch4_window7_224"),
                {"s4": 83.9, "ms3": 64.0, "avss": 53.4},
            ),
        ),
    ),
    "tab2": Experiment(
        "Tab. 2: components",
        (
            Row("1 baseline without decomposition", _BASELINE, {"ms3": 52.9, "avss": 33.5}),
            Row(
                "2 + separation in the time domain",
                {
                    "MODEL.META_ARCHITECTURE": "TimeDomainBaseline",
                    "INPUT.SEPARATION.METHOD": "nmf",
                },
                {"ms3": 56.2, "avss": 38.9},
                weights_of="1 baseline without decomposition",
            ),
            Row(
                "3 + decomposition, not quantized",
                _parts(False, False, False),
                {"ms3": 57.6, "avss": 39.4},
            ),
            Row("4 + quantization", _parts(True, False, False), {"ms3": 59.7, "avss": 42.5}),
            Row("5 + recombination", _parts(True, True, False), {"ms3": 60.1, "avss": 44.5}),
            Row("6 + local calibration", _parts(True, True, True), {"ms3": 61.6, "avss": 46.6}),
        ),
    ),
    "tabA": Experiment(
        "Tab. A: a larger backbone",
        (Row("PVT-v2-B5", _timm("pvt_v2_b5"), {"ms3": 65.8, "avss": 54.5}),),
    ),
    "tabB": Experiment(
        "Tab. B: frames of a training clip",
        _scan("frames", "INPUT.NUM_FRAMES", (3, 5, 7), (60.9, 61.6, None), (45.4, 46.6, 46.6)),
    ),
    "tabC": Experiment(
        "Tab. C: layers of the transformer decoders",
        _scan(
            "layers",
            "MODEL.QDFORMER.DECODER_LAYERS",
            (1, 3, 5),
            (61.3, 61.6, 61.0),
            (45.6, 46.6, 46.0),
        ),
    ),
    "tabD": Experiment(
        "Tab. D: longest side of the frames, pixels",
        _scan("side", _SIZES, (224, 640), (None, None), (46.6, 49.2)),
    ),
    "tabE": Experiment(
        "Tab. E: tokens",
        _scan(
            "tokens",
            "MODEL.QDFORMER.NUM_TOKENS",
            (1, 3, 5, 7, 9),
            (59.7, 61.0, 61.6, 61.6, 61.2),
            (40.2, 43.5, 46.6, 45.9, 46.3),
        ),
    ),
    "tabF": Experiment(
        "Tab. F: codewords",
        _scan(
            "codewords",
            "MODEL.QDFORMER.CODEBOOK.NUM_CODES",
            (1, 32, 64, 128, 256),
            (52.7, 61.4, 60.0, 61.6, 60.6),
            (24.8, 31.5, 43.2, 46.6, 46.1),
        ),
    ),
    "fig5": Experiment("Fig. 5: what the model sees and hears", _FULL),
    "fig6": Experiment("Fig. 6: the audio semantic space", _FULL),
    "fig7": Experiment(
        "Fig. 7: background noise",
        (*_FULL, Row("continuous tokens", {"MODEL.QDFORMER.QUANTIZATION": False})),
    ),
    "figA": Experiment("Fig. A: IoU per class", _FULL),
    "figB": Experiment(
        "Fig. B: training with and without single-source clips, equally many clips",
        tuple(
            Row(
                f"{tokens} tokens, {'half single-source' if single else 'multi-source only'}",
                {"MODEL.QDFORMER.NUM_TOKENS": tokens, "DATALOADER.SINGLE_SOURCE": single},
            )
            for tokens in (3, 5)
            for single in (0.5, 0.0)
        ),
    ),
}
