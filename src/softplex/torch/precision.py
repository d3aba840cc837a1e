"""autocast as layers meet it: the dtype it asks for, and leave of it. Devices that have none, as meta, are no error."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


@torch.compiler.assume_constant_result
def has_autocast(device: str) -> bool:
    """Whether there is autocast for a device, which compilers of torch 2.11 do not find out by themselves."""
    return torch.amp.is_autocast_available(device)


def cast_dtype(device: str) -> torch.dtype | None:
    """What autocast computes products in on a device; None where it is off."""
    if not has_autocast(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def uncast(device: str) -> AbstractContextManager[None]:
    """Without autocast."""
    return torch.autocast(device, enabled=False) if has_autocast(device) else nullcontext()
