"""Without a GPU, the kernels run in Triton's interpreter. Triton must know before its import:
run as a program, this file writes the results of all cases for the tests to read.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# Along an axis of length `size`: places before, on and after the first and the last cell.
BORDER = {size: (-1, -0.75, 0, 0.25, size - 1, size - 0.25, size) for size in (3, 5)}
CASES = {
    "levels and neighbors": {"shapes": [(4, 6), (2, 3), (1, 1)], "frames": 3, "neighbors": 3},
    "one of each": {"frames": 1, "queries": 1, "heads": 1, "points": 1, "channels": 1},
    "several blocks": {"queries": 9, "heads": 1, "channels": 128, "points": 1},
    "padded channels": {"heads": 1, "channels": 65, "points": 3},
    "border": {"places": list(itertools.product(BORDER[5], BORDER[3]))},
    "far outside": {"places": [(1e6, 1), (1, -1e6), (-1e30, 3e38), (2.0**31, -(2.0**31)), (1, 1)]},
    "not contiguous": {"neighbors": 2, "contiguous": False},
    "no queries": {"queries": 0},
    "no frames": {"frames": 0},
    "bfloat16": {"shapes": [(3, 5), (2, 2)], "dtype": torch.bfloat16},
    "float16": {"shapes": [(3, 5), (2, 2)], "dtype": torch.float16, "channels": 8},
    "float32 weights": {"dtype": torch.bfloat16, "weights_dtype": torch.float32},
    "broken": {"places": [(float("nan"), 1), (float("inf"), 1), (1, 1)]},
}


def inputs(
    shapes=((3, 5),),
    frames=2,
    queries=3,
    heads=2,
    channels=6,
    neighbors=1,
    points=2,
    places=None,
    dtype=torch.float32,
    weights_dtype=None,
    contiguous=True,
):
    """Arguments for a case, and the gradient of its output."""
    generator = torch.Generator().manual_seed(0)

    def rand(*size):
        return torch.rand(*size, generator=generator)

    queries = len(places) if places else queries
    maps = neighbors * len(shapes)
    cells = sum(height * width for height, width in shapes)
    # All around are numbers that must not be read.
    value = torch.full((3, frames, cells, heads, channels), float("nan"), dtype=dtype)[1]
    value.copy_(rand(value.shape) - 0.5)
    sizes = torch.tensor([(width, height) for height, width in shapes]).repeat(neighbors, 1)
    locations = rand(frames, queries, heads, maps, points, 2) * (sizes[:, None] + 3) - 2
    if places:
        locations[:] = torch.tensor(places)[:, None, None, None]
    weights = rand(frames, queries, heads, maps, points)
    indices = (torch.arange(frames)[:, None] + torch.arange(neighbors)) % max(frames, 1)
    grad = rand(frames, queries, heads * channels) - 0.5
    tensors = (value, indices, locations, weights.to(weights_dtype or dtype), grad.to(dtype))
    if not contiguous:
        tensors = [tensor.mT.contiguous().mT for tensor in tensors]
        assert not any(tensor.is_contiguous() for tensor in tensors)
    value, indices, locations, weights, grad = tensors
    return (value, list(shapes), indices, locations, weights), grad


def split(locations):
    """Where each query stands, (Q, maps, 2), and the offsets from there to the places."""
    _, queries, _, maps, _, _ = locations.shape
    centers = (torch.arange(queries)[:, None] + torch.arange(maps))[..., None] % 3 * 0.25
    centers = centers.expand(-1, -1, 2).to(locations)
    return centers, locations - centers[:, None, :, None]


def run(function, arguments, grad, device="cpu"):
    """The output, and the gradients of value, locations and weights."""
    value, shapes, neighbors, locations, weights = arguments
    centers, offsets = split(locations)
    leaves = [x.detach().to(device).requires_grad_() for x in (value, offsets, weights)]
    output = function(leaves[0], shapes, neighbors.to(device), centers.to(device), *leaves[1:])
    gradients = torch.autograd.grad(output, leaves, grad.to(device))
    return [tensor.detach().cpu() for tensor in (output, *gradients)]


def run_forward(function, arguments, device):
    value, shapes, neighbors, locations, weights = arguments
    rest = [tensor.to(device) for tensor in (neighbors, *split(locations), weights)]
    return function(value.to(device), shapes, *rest).cpu()


def run_kernels(device):
    """Results by case."""
    from qdformer.layers.ms_deform_attn_triton import ms_deform_attn_triton

    results = {}
    arguments, grad = inputs(shapes=[(2, 2)], queries=1)
    with torch.inference_mode():
        results["inference"] = run_forward(ms_deform_attn_triton, arguments, device)
    results["training"] = run(ms_deform_attn_triton, arguments, grad, device)[0]
    for name, case in CASES.items():
        results[name] = run(ms_deform_attn_triton, *inputs(**case), device)
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if torch.cuda.is_available():
        return run_kernels("cuda")
    path = tmp_path_factory.mktemp("kernels") / "results.pt"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, path], env=environment, check=True)
    return torch.load(path)


def grid_sampled(value, shapes, neighbors, centers, offsets, weights):
    """The same sum by PyTorch's own bilinear reading, in double precision."""
    value, weights = value.double(), weights.double()
    locations = centers.double()[:, None, :, None] + offsets.double()
    frames, queries, heads, _, points, _ = locations.shape
    total, index = 0, 0
    for neighbor in neighbors.unbind(1):
        start = 0
        for height, width in shapes:
            level = value[neighbor, start : start + height * width]
            level = level.permute(0, 2, 3, 1).reshape(frames * heads, -1, height, width)
            places = locations[:, :, :, index].transpose(1, 2)
            places = places.reshape(frames * heads, queries, points, 2)
            # Where PyTorch reads zero, too, but does not overflow.
            places = places.clamp(-10, 10)
            grid = (2 * places + 1) / places.new_tensor([width, height]) - 1
            read = F.grid_sample(level, grid, align_corners=False)
            shares = weights[:, :, :, index].transpose(1, 2)
            shares = shares.reshape(frames * heads, 1, queries, points)
            total = total + (read * shares).sum(-1)  # (F*heads, D, Q)
            start, index = start + height * width, index + 1
    return total.reshape(frames, heads * value.shape[-1], queries).transpose(1, 2)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("no frames", "broken")])
def test_equals_grid_sample(results, name):
    arguments, grad = inputs(**CASES[name])
    expected = run(grid_sampled, arguments, grad.double())
    # On a cell's center, the slope may be taken on either side.
    ambiguous = arguments[3] % 1 == 0
    for result in (results[name], expected):
        result[2][ambiguous] = 0
    # What is summed in single precision is rounded once.
    for result, reference in zip(results[name], expected):
        tolerance = max(torch.finfo(result.dtype).eps, 4e-6)
        torch.testing.assert_close(result, reference.to(result), rtol=tolerance, atol=4e-6)


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_types(results, name):
    (value, _, _, locations, weights), grad = inputs(**CASES[name])
    for result, model in zip(results[name], (grad, value, locations, weights)):
        assert result.shape == model.shape
        assert result.dtype == model.dtype


def test_far_outside_is_zero(results):
    output, _, grad_locations, grad_weights = results["far outside"]
    assert not output[:, :-1].any()
    assert not grad_locations[:, :-1].any()
    assert not grad_weights[:, :-1].any()


def test_broken_locations_break_their_query_only(results):
    arguments, grad = inputs(**CASES["broken"])
    expected = run(grid_sampled, arguments, grad.double())
    for result, reference in zip(results["broken"], expected):
        if result.shape[1] == 3:
            torch.testing.assert_close(result[:, 2], reference[:, 2].to(result))


def test_inference_before_training(results):
    torch.testing.assert_close(results["inference"], results["training"], rtol=0, atol=0)


def real_inputs(dtype):
    """Five frames of 224x224 pixels; no place so near to a cell's center that slopes may differ."""
    arguments, grad = inputs(
        shapes=[(28, 28), (14, 14), (7, 7)],
        frames=5,
        queries=28 * 28 + 14 * 14 + 7 * 7,
        heads=8,
        channels=32,
        neighbors=3,
        points=4,
        dtype=dtype,
    )
    value, shapes, neighbors, locations, weights = arguments
    locations = locations.floor() + 0.1 + 0.8 * locations.frac().abs()
    return (value, shapes, neighbors, locations, weights), grad


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_size_equals_the_plain_version(dtype):
    from qdformer.layers.ms_deform_attn import ms_deform_attn
    from qdformer.layers.ms_deform_attn_triton import ms_deform_attn_triton

    (value, shapes, neighbors, locations, weights), grad = real_inputs(dtype)
    arguments = (value.float(), shapes, neighbors, locations, weights.float())
    expected = run(ms_deform_attn, arguments, grad.float())  # on the CPU, where it is the plain one
    arguments = (value, shapes, neighbors, locations, weights)
    for result, reference in zip(run(ms_deform_attn_triton, arguments, grad, "cuda"), expected):
        tolerance = max(torch.finfo(result.dtype).eps, 1e-4)
        torch.testing.assert_close(result.float(), reference, rtol=tolerance, atol=1e-4)


@needs_gpu
def test_nothing_waits_for_the_gpu():
    from qdformer.layers.ms_deform_attn_triton import ms_deform_attn_triton

    (value, shapes, neighbors, locations, weights), grad = real_inputs(torch.float32)
    centers, offsets = split(locations)
    neighbors, centers, grad = neighbors.cuda(), centers.cuda(), grad.cuda()
    leaves = [tensor.cuda().requires_grad_() for tensor in (value, offsets, weights)]

    def forward_and_backward():
        output = ms_deform_attn_triton(leaves[0], shapes, neighbors, centers, *leaves[1:])
        torch.autograd.grad(output, leaves, grad)

    forward_and_backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        forward_and_backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_compiles():
    from qdformer.layers.ms_deform_attn_triton import ms_deform_attn_triton

    arguments, grad = inputs(**CASES["levels and neighbors"])
    compiled = torch.compile(ms_deform_attn_triton, fullgraph=True)
    expected = run(ms_deform_attn_triton, arguments, grad, "cuda")
    for result, reference in zip(run(compiled, arguments, grad, "cuda"), expected):
        torch.testing.assert_close(result, reference)


if __name__ == "__main__":
    torch.save(run_kernels("cpu"), sys.argv[1])
