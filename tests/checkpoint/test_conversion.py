"""Converted weights give the outputs of the libraries that they come from."""

import pickle
import re
from functools import lru_cache
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from qdformer.checkpoint.checkpointer import AVSCheckpointer, load_audio_network
from qdformer.checkpoint.conversion import PIXEL_STD, convert_weights, summary
from qdformer.checkpoint.weights import write_weights
from qdformer.commands import convert_weights as convert_weights_command
from qdformer.config.loading import load_config
from qdformer.errors import InputError
from qdformer.modeling.vggish import VGGish
from tests.engine.published import (
    FOLDED,
    STATISTICS,
    caffe2_names,
    published,
    random_network,
    randomize,
    torchvggish,
)
from tests.io.hostile_files import CODE, write_archive, write_weights_in_pickle

ROOT = Path(__file__).parents[2]
SWIN = "swin_tiny_patch4_window7_224"
STAGES = {f"layer{stage}": f"res{stage + 1}" for stage in (1, 2, 3, 4)}
FILES = {
    "torchvision": "r50",
    "microsoft": "swin_t",
    "former timm": "swin_t",
    "timm": "swin_t",
    "official b2": "pvt_v2_b2",
    "timm b2": "pvt_v2_b2",
    "official b5": "pvt_v2_b5",
    "official lite": "lite0",
}
"""Formats of a file and the config that takes them."""


@lru_cache(maxsize=1)  # they are large
@torch.no_grad()
def original(model):
    """The library's network, frames, and its maps of them."""
    size = 224 if model == "swin_t" else 64  # timm's Swin as a whole takes no other
    frames = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)) * 4 - 2
    if model == "r50":
        network = random_network(torchvision.models.resnet50)
        return network, frames, create_feature_extractor(network, STAGES)(frames)
    if model == "swin_t":
        # Its buffers, which no file need hold, are made with it.
        network = randomize(timm.create_model(SWIN, weight_init="skip"))
    else:
        model = {"lite0": "tf_efficientnet_lite0"}.get(model, model)
        network = random_network(timm.create_model, model_name=model)
    maps = network.forward_intermediates(frames, intermediates_only=True)[-len(STAGES) :]
    return network, frames, dict(zip(STAGES.values(), maps, strict=True))


def convert(path, **options):
    converted = convert_weights(str(path), **options)
    output = path.with_suffix(".safetensors")
    write_weights(converted.weights, output)
    return converted, output


def load_backbone(model, path, *overrides):
    """That of the config, which must find every weight in the file, and no other."""
    cfg = load_config(str(ROOT / f"configs/qdformer_{model}.yaml"), list(overrides))
    network = nn.Module()
    with torch.device("cpu" if model == "swin_t" else "meta"):
        network.backbone = build_backbone(cfg)
    if model != "swin_t":
        network.to_empty(device="cpu")
    AVSCheckpointer(network, complete=True).load(str(path))
    return network.backbone.eval()


def assert_same(maps, expected):
    assert maps.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() < 1e3 and value.std() > 1e-2, "says nothing"
        scale = max(1.0, float(value.abs().max()))
        assert (maps[name] - value).abs().max() <= 1e-5 * scale, name


@pytest.mark.parametrize("name", FILES)
def test_maps_are_the_publishers(name, tmp_path):
    network, frames, expected = original(FILES[name])
    state = published(name, network)
    torch.save(state, tmp_path / "weights.pth")
    converted, output = convert(tmp_path / "weights.pth")
    model = converted.release.model
    assert model == FILES[name] and not converted.settings and not converted.filled
    for key in converted.unused:
        known = (
            r"(_?(head|fc|conv_head|bn1|bn2)|norm|classifier)\."
            r"|.*(attn_mask|relative_position_index|num_batches_tracked)$"
        )
        assert re.match(known, key), key
    state = state.get("model", state)
    assert len(converted.weights) + len(converted.unused) == len(state)
    with torch.no_grad():
        assert_same(load_backbone(model, output)(frames), expected)


@pytest.mark.parametrize("terms", [STATISTICS, FOLDED], ids=["statistics", "folded"])
def test_maps_of_msras_pickle_are_detectron2s(terms, tmp_path):
    """Which takes BGR less its mean, where the configs take RGB over a deviation as well."""
    config = str(ROOT / "configs" / "qdformer_r50.yaml")
    cfg = load_config(
        config, ["MODEL.RESNETS.STRIDE_IN_1X1", "True", "MODEL.RESNETS.NORM", "FrozenBN"]
    )
    reference = nn.Module()
    reference.backbone = random_network(build_backbone, cfg=cfg)
    arrays = caffe2_names(reference.backbone.state_dict(), terms)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(arrays, 2))
    for value in reference.state_dict().values():
        value.fill_(torch.nan)
    DetectionCheckpointer(reference).load(str(path))
    if terms is FOLDED:
        # Detectron2 means these to be the identity, but loads 1, to which 1e-5 is added.
        for name, value in reference.named_buffers():
            if name.endswith("running_var"):
                assert value.eq(1).all()
                value.sub_(1e-5)

    converted, output = convert(path)
    frozen = ["MODEL.RESNETS.NORM", "FrozenBN"] if terms is FOLDED else []
    assert converted.settings == ["MODEL.RESNETS.STRIDE_IN_1X1", "True", *frozen]
    assert len(converted.filled) == (2 * 53 if terms is FOLDED else 0)
    assert set(converted.unused) == {"conv1_b", "fc1000_w"}
    mean = torch.tensor(cfg.MODEL.PIXEL_MEAN).view(3, 1, 1)
    deviation = torch.tensor(cfg.MODEL.PIXEL_STD).view(3, 1, 1)
    assert cfg.INPUT.FORMAT == "RGB" and tuple(cfg.MODEL.PIXEL_STD) == PIXEL_STD
    rgb = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference.double().backbone((rgb - mean).flip(1).double())
        backbone = load_backbone("r50", output, *converted.settings).double()
        assert_same(backbone(((rgb - mean) / deviation).double()), expected)


def test_embeddings_are_torchvggishs(tmp_path):
    reference = random_network(torchvggish)
    path = tmp_path / "vggish-10086976.pth"
    # A model of torchvggish that ends in its post-processing keeps that too.
    torch.save({**reference.state_dict(), "pproc.pca_means": torch.zeros(128, 1)}, path)
    converted, output = convert(path)
    assert converted.report(output).endswith(f"any config: MODEL.AUDIO.WEIGHTS {output}")
    assert converted.unused == ["pproc.pca_means"] and not converted.filled
    model = nn.Module()
    model.audio_encoder = nn.Module()
    with torch.device("meta"):
        model.audio_encoder.network = VGGish()
    model.audio_encoder.network.to_empty(device="cpu")
    load_audio_network(model, str(output))
    log_mel = torch.rand(2, 1, 96, 64, generator=torch.Generator().manual_seed(1)) * 8 - 5
    with torch.no_grad():
        cells = reference["features"](log_mel).transpose(1, 3).transpose(1, 2)
        expected = reference["embeddings"](cells.reshape(2, -1))
        assert_same({"": model.audio_encoder.network(log_mel)}, {"": expected})


def zeros(shapes):
    return {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def shapes():
    """Those of torchvision's ResNet-50, whose networks are the smallest files."""
    with torch.device("meta"):
        state = torchvision.models.resnet50().state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


UNFIT = {
    "incomplete": (
        lambda shapes: {k: v for k, v in shapes.items() if not k.startswith("layer4.2.bn3")},
        r"closest is r50 \(torchvision\), of which 4 tensors .*: backbone.res5.2.conv3.norm.weight",
    ),
    "another shape": (
        lambda shapes: {**shapes, "conv1.weight": (64, 4, 7, 7)},
        r"of which 1 tensors are missing or of another shape: backbone.stem.conv1.weight;",
    ),
    "deeper": (
        lambda shapes: {**shapes, "layer3.6.conv1.weight": (256, 1024, 1, 1)},
        r"larger than r50 \(torchvision\) by layer3.6.conv1.weight;",
    ),
    "VGGish's post-processing": (
        lambda shapes: {"pca_eigen_vectors": (128, 128), "pca_means": (128, 1)},
        r"none of its 2 tensors \(pca_eigen_vectors, pca_means\) is known",
    ),
    "empty": (lambda shapes: {}, r"none of its 0 tensors"),
}


@pytest.mark.parametrize("edit, problem", UNFIT.values(), ids=UNFIT)
def test_what_fits_nothing_is_refused_in_a_sentence(edit, problem, shapes, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(zeros(edit(shapes)), path)
    with pytest.raises(InputError, match=problem) as error:
        convert_weights(str(path))
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 800
    for known in (
        "torchvision",
        "MSRA",
        "swin_t",
        "pvt_v2_b2",
        "pvt_v2_b5",
        "lite0",
        "yamnet",
        "vggish",
    ):
        assert known in text


def test_group_normalization_is_not_taken_for_batch_normalization(tmp_path):
    """As Detectron2's loader would, of R-50-GN.pkl."""
    cfg = load_config(str(ROOT / "configs" / "qdformer_r50.yaml"), [])
    with torch.device("meta"):
        state = build_backbone(cfg).state_dict()
    state = zeros({name: value.shape for name, value in state.items()})
    arrays = {k.replace("_bn_", "_gn_"): v for k, v in caffe2_names(state, FOLDED).items()}
    path = tmp_path / "R-50-GN.pkl"
    path.write_bytes(pickle.dumps({"blobs": arrays}, 2))
    with pytest.raises(InputError, match=r"closest is r50 \(Detectron2's MSRA pickle\), of which"):
        convert_weights(str(path))


def test_the_network_can_be_given(shapes, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(zeros(shapes), path)
    assert convert_weights(str(path), model="r50").release.model == "r50"
    with pytest.raises(InputError, match="cannot be converted"):
        convert_weights(str(path), model="swin_t")
    with pytest.raises(InputError, match="--to r51: .* one of r50, swin_t, pvt_v2_b2, pvt_v2_b5"):
        convert_weights(str(path), model="r51")


def test_names_are_counted_without_their_numbers():
    assert summary([]) == "none"
    names = ["head.weight", "layers.0.blocks.1.attn_mask", "layers.2.blocks.3.attn_mask"]
    assert summary(names) == "head.weight, layers.*.blocks.*.attn_mask (2)"


def run_script(*arguments):
    convert_weights_command.main([*map(str, arguments)])


def test_the_command_says_what_it_did_and_how_to_load_it(shapes, tmp_path, monkeypatch, capsys):
    path, output = tmp_path / "resnet50-11ad3fa6.pth", tmp_path / "new" / "r50.safetensors"
    torch.save(zeros(shapes), path)
    run_script(path, output)
    assert capsys.readouterr().out.splitlines() == [
        f"r50 (torchvision): 265 tensors in {output}",
        "Not used: bn1.num_batches_tracked, layer*.*.bn*.num_batches_tracked (48), "
        "layer*.*.downsample.*.num_batches_tracked (4), fc.weight, fc.bias",
        "Not found: none",
        f"Load it with --config-file configs/qdformer_r50.yaml: MODEL.WEIGHTS {output}",
    ]
    with pytest.raises(SystemExit, match=r"^convert_weights: .*\.safetensors; give a file"):
        run_script(path, tmp_path / "r50.pth")
    assert not (tmp_path / "r50.pth").exists()


@pytest.mark.parametrize(
    "name, write", [("R-50.pkl", write_weights_in_pickle), ("a.pth", write_archive)]
)
def test_no_code_in_a_file_is_run(name, write, tmp_path, monkeypatch):
    marker, output = tmp_path / "marker", tmp_path / "out.safetensors"
    for code, instructions in CODE.items():
        write(tmp_path / name, instructions(marker))
        with pytest.raises(SystemExit, match="cannot be used as weights"):
            run_script(tmp_path / name, output)
        assert not marker.exists() and not output.exists(), code
