"""Which device a network runs on, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def pick_device(device: str) -> torch.device:
    """Return the device that `device` names; "auto" takes CUDA, then MPS, then the CPU.

    Each process that torchrun starts on a machine takes a CUDA device of its own.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device!r} is not to be had here: {error}. Use device='auto' or 'cpu'.") from error
    return chosen


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16: on CUDA since Ampere, on processors with AMX.

    AVX-512 has bfloat16 too, but products in it took longer than in float32 where this was measured.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in older versions
    return device.type == "cpu" and ask is not None and bool(ask().get("amx_bf16"))


def idle_gpus(device: torch.device) -> int:
    """Return how many GPUs there are beside the one that was taken where none was named."""
    return torch.cuda.device_count() - 1 if device == torch.device("cuda") else 0


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Allow TF32 in what CUDA multiplies in float32 meanwhile, in all threads, but no convolution of changing bits."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.deterministic = before[1]


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    words = ("can't allocate memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in str(error) for word in words)
