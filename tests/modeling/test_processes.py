"""Two processes with half of the clips each learn what one process with all of them learns."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from qdformer.layers.sync_batch_norm import convert_sync_batch_norm
from qdformer.modeling.codebook import Codebook
from qdformer.modeling.criterion import SegmentationCriterion
from qdformer.modeling.matcher import LossWeights
from tests.samples import make_clip, make_predictions, small_model


def tokens():
    return torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(1))


def learn(clips, rank=0, **options):
    torch.manual_seed(0)
    codebook = Codebook(
        num_codes=6, channels=4, commitment=0.5, update_rule="ema", decay=0.8, **options
    )
    # What a process draws is its own.
    torch.manual_seed(rank)
    for _ in range(3):
        codebook(clips)
        codebook.step()
    return codebook.state_dict()


def clip(index):
    """Predictions and targets of one of two clips that have different numbers of objects."""
    predictions, targets = make_predictions(frames=3, tokens=4, objects=2 - index, seed=index)
    targets.sounding[:] = index == 0
    targets.sounding[0] = True  # six objects that sound in the first clip, one in the second
    return predictions, targets


def loss(index):
    return sum(SegmentationCriterion(weights=LossWeights())(*clip(index), [3]).values())


def gradients(clips):
    """Of a step of the whole network, and the statistics of its normalizations.

    Those of the backbone are 53 in a row over a few cells each, and would turn what rounding leaves
    into per cents.
    """
    norms = ["MODEL.RESNETS.NORM", "FrozenBN", "MODEL.AUDIO.NORM", "BN"]
    model = convert_sync_batch_norm(small_model(*norms)).train()
    with EventStorage():
        sum(model(clips).values()).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found, {name: b for name, b in model.named_buffers() if "running" in name}


def clips_of(*indices):
    return [make_clip(seed=index, objects=2 - index) for index in indices]


def run_half(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=rank
    )
    state = learn(tokens()[rank::2])
    revived = learn(tokens()[rank::2], rank, revive_below=1.0)
    step = gradients(clips_of(rank))
    rows = slice(2) if rank == 0 else slice(2, None)
    stack = deep_gradients(convert_sync_batch_norm(deep()), rows)
    torch.save((state, loss(rank), revived, step, stack), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    torch.multiprocessing.spawn(run_half, (folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


def test_codebook_statistics_are_shared(halves):
    whole = learn(tokens())
    for state, *_ in halves:
        for name, value in whole.items():
            torch.testing.assert_close(state[name], value)


def test_a_word_returns_at_the_same_token_in_every_process(halves):
    (_, _, first, *_), (_, _, second, *_) = halves
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    gaps = torch.cdist(first["codewords"], tokens().flatten(0, 1)).amin(1)
    assert (gaps == 0).any()


def test_losses_are_divided_by_the_objects_of_all_processes(halves):
    """The mean over processes, as DDP takes it of the gradients, weighs every object alike."""
    mean = sum(half for _, half, *_ in halves) / 2
    counts = [int(clip(index)[1].sounding.sum()) for index in range(2)]
    expected = sum(loss(index) * count for index, count in enumerate(counts)) / sum(counts)
    torch.testing.assert_close(mean, expected)


def test_two_processes_take_the_step_of_one(halves):
    """DDP averages gradients over processes."""
    whole, _ = gradients(clips_of(0, 1))
    (first, _), (second, _) = (half[3] for half in halves)
    assert whole.keys() == first.keys() == second.keys()
    for name, gradient in whole.items():
        mean = (first[name] + second[name]) / 2
        torch.testing.assert_close(mean, gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_statistics_of_a_batch_are_those_of_all_processes(halves):
    _, whole = gradients(clips_of(0, 1))
    for _, statistics in (half[3] for half in halves):
        assert statistics.keys() == whole.keys() and len(whole) > 10
        for name, value in whole.items():
            torch.testing.assert_close(statistics[name], value, rtol=1e-5, atol=1e-6, msg=name)


def deep(dtype=torch.float64):
    torch.manual_seed(0)
    layers = [(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(12)]
    return nn.Sequential(*(layer for block in layers for layer in block)).to(dtype).train()


def deep_gradients(network, rows):
    values = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    # Of six rows one process has two, the other four.
    (network(values[rows]) ** 3).sum().backward()
    return [parameter.grad for parameter in network.parameters()]


def test_normalization_over_processes_of_other_sizes_is_that_of_one(halves):
    whole = deep_gradients(deep(), slice(None))
    for first, second, expected in zip(halves[0][4], halves[1][4], whole, strict=True):
        torch.testing.assert_close(first + second, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind, shape", [(nn.BatchNorm1d, (5, 3)), (nn.BatchNorm2d, (2, 3, 4, 5))])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_alone_it_is_torchs(kind, shape, momentum):
    plain = kind(3, momentum=momentum)
    shared = convert_sync_batch_norm(nn.Sequential(kind(3, momentum=momentum)))
    values = torch.randn(shape)
    for training in (True, True, False):
        found, expected = (net.train(training)(values) for net in (shared, plain))
        torch.testing.assert_close(found, expected)
