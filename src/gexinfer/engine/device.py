"""Which device a network runs on."""

from __future__ import annotations

import torch


def pick_device(device: str) -> torch.device:
    """Return the device that `device` names; "auto" takes CUDA, then MPS, then the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device!r} is not to be had here: {error}. Use device='auto' or 'cpu'.") from error
    return chosen
