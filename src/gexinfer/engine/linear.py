"""A linear layer whose gradient does not cost fresh memory at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# The C library hands blocks beyond 32 MB back to the system as soon as they are free, so a new gradient of such a size
# is zeroed page by page at every step: that took a quarter of the steps of a large network at a batch of 64.
LARGE = 2**23
# Stacked weights of several members gain from less on, because more gradients come and go at once.
LARGE_STACK = 2**20


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight' + bias; the gradient of a large weight on the processor always goes to the same memory.

    It goes to `weight.grad`, and nowhere else: `torch.autograd.grad` does not see it. Of several members' weights,
    (members, outputs, inputs), each is multiplied with its own of (members, rows, inputs).
    """
    # What was computed from other tensors must hand its gradient on to them.
    learning = weight.requires_grad and weight.is_leaf and torch.is_grad_enabled()
    large = weight.numel() >= (LARGE if weight.ndim == 2 else LARGE_STACK)
    if learning and large and weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return Kept.apply(x, weight, bias)
    return product(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    turned = weight.transpose(1, 2)
    return torch.bmm(x, turned) if bias is None else torch.baddbmm(bias[:, None], x, turned)


class Kept(torch.autograd.Function):
    """The gradient of a weight in a tensor that is kept with it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x, weight = ctx.saved_tensors
        multiply, add = (torch.mm, Tensor.addmm_) if weight.ndim == 2 else (torch.bmm, Tensor.baddbmm_)
        if weight.grad is None:
            weight.kept = getattr(weight, "kept", torch.empty(0)).resize_(weight.shape)
            multiply(above.mT, x, out=weight.kept)
            weight.grad = weight.kept
        else:
            add(weight.grad, above.mT, x)
        needs_x, _, needs_bias = ctx.needs_input_grad
        return above @ weight if needs_x else None, None, above.sum(-2) if needs_bias else None
