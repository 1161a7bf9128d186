"""Every config key that QDFormer adds to Detectron2's, with its unit and the paper's symbol."""

import torch
from detectron2.config import CfgNode as CN
from fvcore.common.registry import Registry

CONFIG_REGISTRY = Registry("CONFIG")
CONFIG_REGISTRY.__doc__ = """
Functions that declare keys of their own, for whoever extends QDFormer: ``function(cfg)`` adds them,
with their defaults, to a config that has QDFormer's.
"""


def add_qdformer_config(cfg: CN) -> None:
    """Declare QDFormer's keys in ``cfg``, with the paper's values as defaults.

    The config can be built as it is: a ResNet-50, AVSS's classes, on the GPU where there is one.

    Args:
        cfg: a config from ``detectron2.config.get_cfg()``; changed in place.
    """
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # All maps: the pixel features need stride 4.
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Folders under $DETECTRON2_DATASETS (or absolute paths) that hold AVSBench's trees; each
    # registers <folder name>_{s4,ms3,avss}_{train,val,test}. avsbench_* is always registered.
    cfg.DATASETS.AVS_ROOTS = ()

    # The part of the training clips with one source, 0 to 1, out of as many clips for each part up
    # to 0.5 (Fig. B); -1 takes all clips as they are.
    cfg.DATALOADER.SINGLE_SOURCE = -1.0

    # Frames of a training clip, T (Tab. B). At inference every clip keeps its own length.
    cfg.INPUT.NUM_FRAMES = 5
    # Seconds between the starts of two log-mel examples: 0.96 as AVSBench, 1.0 in step with frames.
    cfg.INPUT.AUDIO_HOP = 0.96
    # In training, the sound is made louder or softer by up to this many dB.
    cfg.INPUT.AUDIO_GAIN = 0.0
    # At inference, clips come with their sound separated, too, for META_ARCHITECTURE
    # "TimeDomainBaseline" (Tab. 2, row 2): by which of qdformer/audio/separation.py ("": none), and
    # into how many sources.
    cfg.INPUT.SEPARATION = CN()
    cfg.INPUT.SEPARATION.METHOD = ""
    cfg.INPUT.SEPARATION.NUM_SOURCES = 2
    # In training, the frames' brightness and contrast change by up to this fraction.
    cfg.INPUT.COLOR_JITTER = 0.0

    # A registered mapper, see qdformer.data.dataset_mapper.MAPPER_REGISTRY.
    cfg.INPUT.MAPPER = "AVSDatasetMapper"

    _add_model_config(cfg)

    # Learning rate of the visual backbone, as a fraction of BASE_LR.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.5
    # The newest checkpoints that stay on disk, beside the best and the final one; 0 for all.
    cfg.SOLVER.KEEP_CHECKPOINTS = 3
    # Keep the weights that were best on the first of DATASETS.TEST, as model_best.
    cfg.TEST.SAVE_BEST = True
    # At inference a longer clip goes through the network in windows of this many frames; neighbors
    # share some frames for their context.
    cfg.TEST.WINDOW = 10
    cfg.TEST.WINDOW_OVERLAP = 2
    # Write the masks of evaluated sets, see qdformer.evaluation.saved_predictions.
    cfg.TEST.SAVE_PREDICTIONS = False
    # Clips of the evaluated set that are drawn beside their ground truth after each evaluation.
    cfg.TEST.NUM_SHEETS = 4

    for _, add_config in CONFIG_REGISTRY:
        add_config(cfg)


def _add_model_config(cfg: CN) -> None:
    cfg.MODEL.META_ARCHITECTURE = "QDFormer"

    # timm's name of the backbone that build_timm_backbone makes.
    cfg.MODEL.TIMM = CN()
    cfg.MODEL.TIMM.NAME = "swin_tiny_patch4_window7_224"
    # Its maps: res2 (stride 4) to res5 (stride 32).
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Stochastic depth in training.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.2
    # Begin with timm's own weights, which it downloads once.
    cfg.MODEL.TIMM.PRETRAINED = False
    # Keep batch normalization, weights and statistics, as it is.
    cfg.MODEL.TIMM.FREEZE_NORM = False

    # A network of AUDIO_NETWORK_REGISTRY: "VGGish", as in the paper, or "YAMNet".
    cfg.MODEL.AUDIO = CN()
    cfg.MODEL.AUDIO.NAME = "VGGish"
    # VGGish: channels of the four convolution stages and widths of the linear layers.
    cfg.MODEL.AUDIO.CONV_DIMS = [64, 128, 256, 512]
    cfg.MODEL.AUDIO.FC_DIMS = [4096, 4096, 128]
    # Normalization after each convolution: "BN" helps from random weights, released ones want "".
    cfg.MODEL.AUDIO.NORM = ""
    # File with the network's released weights; empty starts from random ones.
    cfg.MODEL.AUDIO.WEIGHTS = ""
    # Hear the features of its last convolution, too, one for each patch in time and frequency (24
    # of VGGish, 6 of YAMNet), instead of one embedding a frame. As in the paper: False.
    cfg.MODEL.AUDIO.PATCHES = False
    # Keep the network as it is. Needs AUDIO.WEIGHTS: random weights are always trained.
    cfg.MODEL.AUDIO.FREEZE = True
    # Of a frozen network, the last so many convolutions and linear layers are trained all the same.
    cfg.MODEL.AUDIO.TRAINED_LAYERS = 0

    cfg.MODEL.QDFORMER = CN()
    # Classes without background; 0 takes those of the data set, or AVSS's where none is named.
    cfg.MODEL.QDFORMER.NUM_CLASSES = 0
    # C = C_v = C_e = C_q.
    cfg.MODEL.QDFORMER.HIDDEN_DIM = 256
    # Heads of every attention.
    cfg.MODEL.QDFORMER.NUM_HEADS = 8
    # Hidden channels of every feed-forward net.
    cfg.MODEL.QDFORMER.DIM_FEEDFORWARD = 1024
    # N, tokens that a sound is decomposed into (Tab. E).
    cfg.MODEL.QDFORMER.NUM_TOKENS = 5
    # Layers of the three transformer decoders (Tab. C).
    cfg.MODEL.QDFORMER.DECODER_LAYERS = 3
    # Tab. 2: quantize the tokens (row 4), recombine them with the visual features (row 5) and
    # calibrate them frame by frame (row 6). Row 1 is META_ARCHITECTURE "QDFormerBaseline".
    cfg.MODEL.QDFORMER.QUANTIZATION = True
    cfg.MODEL.QDFORMER.RECOMBINATION = True
    cfg.MODEL.QDFORMER.LOCAL_CALIBRATION = True
    # Supervise every layer of the mask decoder in training, not only the last one.
    cfg.MODEL.QDFORMER.DEEP_SUPERVISION = True
    # In training, compute what leads to the two finest maps of the backbone once more in backward
    # instead of keeping it: less memory, the same gradients.
    cfg.MODEL.QDFORMER.CHECKPOINT_ACTIVATIONS = True
    # Train background as a class of its own.
    cfg.MODEL.QDFORMER.BACKGROUND_CLASS = False

    # Deformable encoder: layers, points a head samples in each map, and how many frames before and
    # after its own a query samples (0: every frame for itself).
    cfg.MODEL.QDFORMER.ENCODER = CN()
    cfg.MODEL.QDFORMER.ENCODER.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.QDFORMER.ENCODER.LAYERS = 3
    cfg.MODEL.QDFORMER.ENCODER.NUM_POINTS = 4
    cfg.MODEL.QDFORMER.ENCODER.TEMPORAL_WINDOW = 1

    # K, codewords (Tab. F).
    cfg.MODEL.QDFORMER.CODEBOOK = CN()
    cfg.MODEL.QDFORMER.CODEBOOK.NUM_CODES = 128
    # lambda_com of Eq. 9 (the paper has 0.5); a tenth of it while the tokens are continuous.
    cfg.MODEL.QDFORMER.CODEBOOK.COMMITMENT = 1.0
    # "ema": codewords are the moving average of their global tokens, whatever the learning rate.
    # Eq. 9 as it is written, whose first term moves them: "gradient".
    cfg.MODEL.QDFORMER.CODEBOOK.UPDATE = "ema"
    # Of the moving averages, per iteration.
    cfg.MODEL.QDFORMER.CODEBOOK.DECAY = 0.97
    # Compare tokens and codewords on the unit sphere. Eq. 9 as it is written: False.
    cfg.MODEL.QDFORMER.CODEBOOK.UNIT_NORM = True
    # Fraction of SOLVER.MAX_ITER in which the tokens that are trained with turn from continuous to
    # quantized; evaluations always quantize. Eq. 9 as it is written: 0.
    cfg.MODEL.QDFORMER.CODEBOOK.FADE_IN = 0.67
    # A codeword used below this fraction of 1 / K comes back at a token, one an iteration. Eq. 9 as
    # it is written: 0.
    cfg.MODEL.QDFORMER.CODEBOOK.REVIVE_BELOW = 0.1

    # Loss weights: lambda_quant, lambda_cls, lambda_focal, lambda_dice, lambda_L1, lambda_giou.
    cfg.MODEL.QDFORMER.LOSS = CN()
    cfg.MODEL.QDFORMER.LOSS.QUANT = 1.0
    # Average the terms of Eq. 9 over tokens and frames. Eq. 9 as it is written, sums: False.
    cfg.MODEL.QDFORMER.LOSS.QUANT_MEAN = True
    cfg.MODEL.QDFORMER.LOSS.CLASS = 2.0
    cfg.MODEL.QDFORMER.LOSS.MASK = 5.0
    cfg.MODEL.QDFORMER.LOSS.DICE = 2.0
    cfg.MODEL.QDFORMER.LOSS.L1 = 5.0
    cfg.MODEL.QDFORMER.LOSS.GIOU = 2.0
    # Of all the losses of masks that the global tokens query, in training: the codebook learns the
    # task from them, and local tokens to speak its words. As Fig. 3 is drawn: 0.
    cfg.MODEL.QDFORMER.LOSS.GLOBAL = 0.25
    # Pixel loss of the masks: "bce" (main text) or "focal" (appendix).
    cfg.MODEL.QDFORMER.LOSS.PIXEL = "bce"

    # With --eval-only, fold batch normalization into convolutions and compute in bfloat16.
    cfg.MODEL.QDFORMER.FAST_INFERENCE = False
    # A token takes part in a pixel above this mask probability, and in a frame from this class
    # probability on (appendix C).
    cfg.MODEL.QDFORMER.MASK_THRESHOLD = 0.5
    cfg.MODEL.QDFORMER.CLASS_THRESHOLD = 0.1
