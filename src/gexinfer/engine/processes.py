"""Processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Processes:
    """Which of how many this process is."""

    rank: int = 0
    size: int = 1

    def share(self, picks: Tensor) -> Tensor:
        """Return this process's part of a batch."""
        return picks[self.rank :: self.size]

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def same(self, array: np.ndarray) -> np.ndarray:
        """Return the first process's numbers, so that all take the same turn."""
        if self.size == 1:
            return array
        there = torch.from_numpy(array.copy())
        # The gloo group of `join` takes tensors of the processor, whatever the devices.
        dist.broadcast(there, 0)
        return there.numpy()

    def agree(self, value: float) -> float:
        """Return the first process's value."""
        return float(self.same(np.array([value], np.float64))[0])


def join(device: torch.device) -> Processes:
    """Join the processes that torchrun started, once; alone where it started none."""
    if not dist.is_available() or (int(os.environ.get("WORLD_SIZE", "1")) == 1 and not dist.is_initialized()):
        return Processes()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        # Groups cannot be joined a second time, so this one lasts until the process ends.
        atexit.register(dist.destroy_process_group)
    return Processes(dist.get_rank(), dist.get_world_size())
