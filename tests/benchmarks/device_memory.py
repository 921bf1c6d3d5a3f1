"""How much of a GPU's memory tensors take; 0 on a machine without one, where nobody counts.

Its one rule: what another engine or loop in the same process holds is no part of it, so who asks takes that off.
"""

import gc

import torch


def allocated_bytes(device: torch.device) -> int:
    """What tensors take now, after all that nobody needs is gone."""
    gc.collect()
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def forget_peak(device: torch.device) -> None:
    """Let `peak_bytes` begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most that tensors took at once since then."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def in_gib(count: int) -> str:
    """A cell of a table."""
    return f"{count / 2**30:.1f}" if count else "not measured"
