"""Random networks, and their weights as publishers name them."""

import re

import numpy as np
import torch
from timm.models import pvt_v2, swin_transformer
from torch import nn

STATISTICS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
FOLDED = {"weight": "s", "bias": "b"}
"""A normalization's parts in Detectron2's pickle, and in Detectron's, which folds statistics in."""


def randomize(module):
    """Weights that keep a signal's size, with no two channels alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                value.zero_()
                continue
            value.uniform_(-1.7, 1.7, generator=generator)
            fan_in = value[0].numel()
            value.mul_(fan_in**-0.5 if value.ndim > 1 else 0.1)
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                value.add_(1).abs_()
    return module.eval()


def random_network(build, **options):
    """Without the library's own initialization, which takes long."""
    with torch.device("meta"):
        network = build(**options)
    return randomize(network.to_empty(device="cpu"))


def microsofts_names(network):
    """Patches are merged at the end of a stage, the head has one part less, buffers are kept."""
    state = {**network.state_dict(), **dict(network.named_buffers())}
    return {
        re.sub(
            r"(?<=^layers\.)\d(?=\.downsample)", lambda stage: str(int(stage[0]) - 1), name
        ).replace("head.fc.", "head."): value
        for name, value in state.items()
    }


def official_pvt_names(network):
    """patch_embed1 to 4, block1 to 4 and norm1 to 4 lie beside each other; dwconv is nested."""
    rules = {
        r"^patch_embed\.": lambda _: "patch_embed1.",
        r"^stages\.(\d)\.downsample\.": lambda stage: f"patch_embed{int(stage[1]) + 1}.",
        r"^stages\.(\d)\.blocks\.": lambda stage: f"block{int(stage[1]) + 1}.",
        r"^stages\.(\d)\.norm\.": lambda stage: f"norm{int(stage[1]) + 1}.",
        r"\.dwconv\.": lambda _: ".dwconv.dwconv.",
    }
    state = network.state_dict()
    for rule, name in rules.items():
        state = {re.sub(rule, name, key): value for key, value in state.items()}
    return state


def official_lite_names(network):
    """Blocks are counted through the stages, and named by what they do."""
    layers = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    expanded = {**layers, "bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
    first = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv"}
    first |= {"bn1": "_bn1", "bn2": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
             "classifier": "_fc"}  # fmt: skip
    counts = [len(stage) for stage in network.blocks]
    state = {}
    for name, value in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            number = sum(counts[: int(parts[1])]) + int(parts[2])
            names = expanded if number else first
            state[f"_blocks.{number}.{names[parts[3]]}.{parts[4]}"] = value
        else:
            state[f"{outer[parts[0]]}.{parts[1]}"] = value
    return state


def published(name, network):
    """What the publisher's file holds; timm, too, finds its own weights in it."""
    state = network.state_dict()
    if name in ("microsoft", "former timm"):
        state = microsofts_names(network)
        assert swin_transformer.checkpoint_filter_fn(state, network).keys() == (
            network.state_dict().keys()
        )
        return {"model": state} if name == "microsoft" else state
    if name == "official lite":
        return official_lite_names(network)
    if name.startswith("official"):
        state = official_pvt_names(network)
        assert pvt_v2.checkpoint_filter_fn(state, network).keys() == network.state_dict().keys()
    return state


def caffe2_names(state, terms):
    """Those of the pickle of MSRA's weights: res2_0_branch2a_w, res2_0_branch2a_bn_gamma, ..."""
    parts = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    arrays = {"conv1_b": np.zeros(64, np.float32), "fc1000_w": np.zeros((9, 9), np.float32)}
    for name, value in state.items():
        *place, convolution, end = re.sub(r"\.norm\.", "._", name).split(".")
        stem = place == ["stem"]
        place = "_".join([*place, parts[convolution]])
        if end == "weight":
            arrays["conv1_w" if stem else f"{place}_w"] = value.numpy()
        elif end[1:] in terms:
            arrays[f"{'res_conv1' if stem else place}_bn_{terms[end[1:]]}"] = value.numpy()
    return arrays


def torchvggish():
    """Its network: the names are those of the modules, channels come last before embeddings."""

    def convolution(*channels):
        return [nn.Conv2d(*channels, kernel_size=3, padding=1), nn.ReLU()]

    features = nn.Sequential(
        *convolution(1, 64),
        nn.MaxPool2d(2),
        *convolution(64, 128),
        nn.MaxPool2d(2),
        *convolution(128, 256),
        *convolution(256, 256),
        nn.MaxPool2d(2),
        *convolution(256, 512),
        *convolution(512, 512),
        nn.MaxPool2d(2),
    )
    embeddings = nn.Sequential(
        nn.Linear(6 * 4 * 512, 4096),
        nn.ReLU(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 128),
        nn.ReLU(),
    )
    return nn.ModuleDict({"features": features, "embeddings": embeddings})
