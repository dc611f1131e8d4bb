"""How much memory there is to work with, and how much is taken."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import torch

GB = 1e9


def amount(size: float) -> str:
    """Return a number of bytes for people to read."""
    return f"{size / GB:.1f} GB" if size >= 0.95 * GB else f"{size / 1e6:,.0f} MB"


def available(device: torch.device) -> int:
    """Return the bytes that may still be taken: on CUDA the device's, else the machine's within its limits."""
    if device.type == "cuda":
        # What torch holds in reserve is as good as free.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        # What was read from files counts as used, but is given up where memory is wanted.
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, int(limit) - int(used) + int(kept["inactive_file"]))
    except (OSError, ValueError, KeyError):
        pass  # no control group, or one without a limit
    if sys.platform == "linux":
        import resource

        used = psutil.Process().memory_info()
        for kind, held in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.data)):
            limited = resource.getrlimit(kind)[0]
            if limited != resource.RLIM_INFINITY:
                free = min(free, limited - held)
    return max(free, 0)


def taken() -> int:
    """Return the bytes that this process holds in the machine's memory."""
    return psutil.Process().memory_info().rss
