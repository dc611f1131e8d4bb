"""Arc-cosine (Cho and Saul, NIPS 2009), RBF and Laplace kernels of landmarks, and their slopes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, order=True)
class Form:
    """A kernel with its shape settled; the bandwidth is a distance."""

    kernel: str
    depth: int
    bandwidth: float
    linear: float


@dataclass(frozen=True)
class Inner:
    """Inner products, over the number of landmarks, of some rows with others, from which every kernel follows."""

    products: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor, same: int = 0) -> Inner:
        """Return the products of rows of `a` and `b`, of which so many at the beginning are the same."""
        inner = cls(a @ b.T / a.shape[1], (a * a).mean(1), (b * b).mean(1))
        # So that the distance of a row from itself is 0, not the root of a rounding error.
        inner.products[:same].diagonal().copy_(inner.left[:same])
        return inner

    def distances(self) -> Tensor:
        squared = self.left[:, None] + self.right - 2 * self.products
        return squared.clamp_(min=0).sqrt_()

    def median_distance(self) -> float:
        """Return about the median: some rows serve as well as all pairs."""
        return float(np.median(self.distances()[:500].cpu().numpy())) or 1.0

    def kernel(self, form: Form) -> Tensor:
        """Return (left, right) values of the kernel."""
        if form.kernel == "arccos":
            norms = (self.left[:, None] * self.right).sqrt_().clamp_(min=1e-12)
            cosine = self.products / norms
            for _ in range(form.depth):
                cosine.clamp_(-1, 1)
                angle = torch.arccos(cosine)
                cosine = ((1 - cosine * cosine).sqrt_() + (torch.pi - angle) * cosine) / torch.pi
            values = cosine * norms
        elif form.kernel == "rbf":
            values = (self.distances().square_() / (-2 * form.bandwidth**2)).exp_()
        else:
            values = (self.distances() / -form.bandwidth).exp_()
        return values.add_(self.products, alpha=form.linear) if form.linear else values

    def slopes(self, form: Form) -> tuple[Tensor, Tensor]:
        """Return (left, right) changes of the kernel with the product, and with the square of the left row."""
        if form.kernel == "arccos":
            norms = (self.left[:, None] * self.right).sqrt().clamp_(min=1e-12)
            first = cosine = (self.products / norms).clamp(-1, 1)
            by_cosine = torch.ones_like(cosine)
            for _ in range(form.depth):
                angle = torch.arccos(cosine)
                cosine = ((1 - cosine * cosine).sqrt() + (torch.pi - angle) * cosine).div_(torch.pi).clamp_(-1, 1)
                by_cosine *= 1 - angle / torch.pi
            by_product = by_cosine
            by_left = (cosine - by_cosine * first) * norms / (2 * self.left[:, None]).clamp(min=1e-12)
        else:
            distances = self.distances()
            if form.kernel == "rbf":
                by_square = (distances.square() / (-2 * form.bandwidth**2)).exp_() / (-2 * form.bandwidth**2)
            else:
                by_square = (distances / -form.bandwidth).exp_() / (-2 * form.bandwidth * distances)
                # At a training sample itself there is a kink; the slopes on its sides cancel.
                by_square[distances == 0] = 0
            by_product, by_left = -2 * by_square, by_square
        return by_product + form.linear, by_left

    def diagonal(self, form: Form) -> Tensor:
        """Return (left,) values of the kernel of each left row with itself."""
        own = self.left if form.kernel == "arccos" else torch.ones_like(self.left)
        return own + form.linear * self.left
