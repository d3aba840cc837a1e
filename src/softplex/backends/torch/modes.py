"""Whether a tensor is plain: dense, on the CPU, and outside of every transform that must see what becomes of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

PLAIN = frozenset({Tensor, torch.nn.Parameter, torch.nn.Buffer})

# torch asks these itself, in autograd.Function.apply, torch.jit.trace and torch.utils._python_dispatch; they have no
# public names.
transforms_are_active = torch._C._are_functorch_transforms_active
tracing_state = torch._C._get_tracing_state
dispatch_modes = torch._C._len_torch_dispatch_stack
is_batched = torch._C._functorch.is_legacy_batchedtensor


def is_plain(x: Tensor) -> bool:
    """Whether the numbers of a tensor may be read where they lie."""
    return type(x) in PLAIN and x.is_cpu and x.layout is torch.strided and not is_transformed()


def is_plain_cotangent(g: Tensor) -> bool:
    """The same for what autograd hands back, which may be a batch of cotangents in the guise of one."""
    return is_plain(g) and not is_batched(g)


def is_transformed() -> bool:
    """Whether something is tracing, batching or differentiating forward what is computed now."""
    return (
        transforms_are_active() or dispatch_modes() > 0 or forward_ad._current_level >= 0 or tracing_state() is not None
    )
