"""What only a GPU can show; skipped where there is none."""

import pytest
import torch

from tests.samples import make_clip, small_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def full_precision(monkeypatch):
    """Convolutions of float32 numbers, not of their first 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_gpu(*overrides):
    return small_model("MODEL.DEVICE", "cuda", *overrides)


@pytest.fixture
def no_waiting():
    """Any operation for which the host has to wait for the GPU is an error."""

    def switch(mode):
        torch.cuda.set_sync_debug_mode(mode)

    yield switch
    switch("default")


@torch.no_grad()
def test_the_forward_does_not_wait_for_the_gpu(no_waiting):
    model = on_gpu().eval()
    clips = [make_clip(frames=3), make_clip(frames=2, size=(48, 64))]
    model.segment(model.collate(clips))
    no_waiting("error")
    model.segment(model.collate(clips))


def test_training_waits_in_the_criterion_alone(storage, no_waiting):
    model = on_gpu().train()
    storage.iter = 1  # between two logs of the codebook
    criterion = model.criterion

    def waiting(*arguments):
        no_waiting("default")
        losses = criterion(*arguments)
        no_waiting("error")
        return losses

    clips = [make_clip(frames=3), make_clip(frames=2)]
    model(clips)
    model.criterion = waiting
    no_waiting("error")
    losses = model(clips)
    sum(losses.values()).backward()


@torch.no_grad()
def test_the_gpu_gives_the_masks_of_the_cpu(full_precision):
    model = small_model("MODEL.QDFORMER.CLASS_THRESHOLD", 0.0).eval()
    clip = make_clip(frames=3)
    (expected,) = model([clip])
    (result,) = model.to("cuda")([clip])
    different = result["sem_seg"].cpu() != expected["sem_seg"]
    assert different.float().mean() < 0.001


@pytest.mark.parametrize("deterministic", [False, True])
def test_gradients_of_the_gpu_are_those_of_the_cpu(storage, full_precision, deterministic):
    model, clips = small_model().train(), [make_clip(frames=3), make_clip(frames=2, seed=1)]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = []
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        for device in ("cpu", "cuda"):
            model.to(device).load_state_dict(state)
            model.zero_grad()
            sum(model(clips).values()).backward()
            gradients.append({n: p.grad.cpu().clone() for n, p in model.named_parameters()})
    finally:
        torch.use_deterministic_algorithms(False)
    largest = max(gradient.abs().max().item() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        # A gradient that is zero but for rounding, as that of a bias before a normalization, may be
        # anything small.
        tolerance = 0.02 * gradient.abs().max().item() + 1e-5 * largest
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0.05, atol=tolerance)
