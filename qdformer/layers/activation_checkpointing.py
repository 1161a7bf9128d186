"""Less memory in training: what a module would keep for backward is computed again there."""

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(module: nn.Module) -> nn.Module:
    """Let a module, in training, keep nothing but its input, and run once more in backward.

    Gradients are the same, and running statistics are updated once.

    Args:
        module: of one input, which it leaves as it is; changed in place, its parameters keep their
            names.

    Returns:
        The module.
    """
    # Unlike a closure, it is copied with the module.
    module.forward = functools.partial(_forward, module)
    return module


def _forward(module: nn.Module, features: Tensor) -> Tensor:
    forward = functools.partial(type(module).forward, module)
    # A compiler chooses by itself what is computed again.
    if not (module.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        return forward(features)
    contexts = contextlib.nullcontext(), _unchanged_buffers(module)
    return checkpoint(forward, features, use_reentrant=False, context_fn=lambda: contexts)


@contextlib.contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
