"""What users add, in a few lines each: ``train_net.py --import tests.extension`` runs all of it."""

import itertools
import os

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, Backbone
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from qdformer import register_avs_dataset
from qdformer.config.defaults import CONFIG_REGISTRY
from qdformer.data.dataset_mapper import MAPPER_REGISTRY, AVSDatasetMapper
from qdformer.data.datasets.avsbench import load_avs
from qdformer.data.train_loader import SAMPLER_REGISTRY
from qdformer.evaluation.registry import EVALUATOR_REGISTRY
from qdformer.modeling.meta_arch import QDFormer
from qdformer.solver.lr_scheduler import LR_SCHEDULER_REGISTRY


@CONFIG_REGISTRY.register()
def add_own_config(cfg):
    cfg.MODEL.OWN = CfgNode({"WIDTH": 8})


@META_ARCH_REGISTRY.register()
class OwnQDFormer(QDFormer):
    def losses(self, *args):
        return super().losses(*args) | {"loss_own": self.prototypes.square().mean()}


class OwnBackbone(Backbone):
    def __init__(self, width):
        super().__init__()
        self._out_features = ["res2", "res3", "res4", "res5"]
        self._out_feature_strides = dict(zip(self._out_features, (4, 8, 16, 32)))
        self._out_feature_channels = dict.fromkeys(self._out_features, width)
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.stages = nn.ModuleList(nn.Conv2d(width, width, 2, stride=2) for _ in range(3))

    def forward(self, image):
        maps = itertools.accumulate(self.stages, lambda map, stage: stage(map).relu(),
                                    initial=self.stem(image).relu())  # fmt: skip
        return dict(zip(self._out_features, maps))


@BACKBONE_REGISTRY.register()
def build_own_backbone(cfg, input_shape: ShapeSpec):
    return OwnBackbone(cfg.MODEL.OWN.WIDTH)


@MAPPER_REGISTRY.register()
class OwnMapper(AVSDatasetMapper):
    def __call__(self, record):
        return super().__call__(record) | {"own": True}


@SAMPLER_REGISTRY.register()
def in_order(cfg, num_clips, seed):
    return itertools.cycle(range(num_clips))


@LR_SCHEDULER_REGISTRY.register()
def halving(cfg, optimizer):
    return LambdaLR(optimizer, lambda step: 0.5**step)


@EVALUATOR_REGISTRY.register()
class OwnEvaluator(DatasetEvaluator):
    task, primary_metric = "own", "clips"

    def __init__(self, dataset_name, output_dir=None):
        self.reset()

    def reset(self):
        self.clips = 0

    def process(self, inputs, outputs):
        self.clips += sum(clip["own"] for clip in inputs)

    def evaluate(self):
        return {"own": {"clips": self.clips}}


for split in ("train", "test"):
    register_avs_dataset(
        f"own_{split}",
        lambda split=split: load_avs(os.environ["OWN_CLIPS"], "avss", split),
        ["bell", "drum", "siren"],
        evaluator_type="own",
    )
