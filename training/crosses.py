"""The crosses of DCN-V2: full-rank, and a mixture of low-rank experts (Wang et al., 2021, sections 3.2 and 3.3).

Both first read their input x through one linear map and then finish with the rest, which is where x0 comes in. What a
cross reads of x0 itself is thus a sum over parts of x0, and the part of the item can be computed once per item.
"""

from __future__ import annotations

import torch
from torch import nn

START = 0.001
"""Deviation of the weights at the start: x comes out nearly as it went in. At 0.01 three crosses already blur the
linear model that the head starts from."""


class FullCross(nn.Module):
    """``x0 * (W x + b) + x``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, width)
        nn.init.normal_(torch.as_tensor(self.read.weight), std=START)
        nn.init.zeros_(torch.as_tensor(self.read.bias))

    def finish(self, x0: torch.Tensor, x: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """``(B, n, width)``, where ``read`` is what ``self.read`` makes of ``x``."""
        return x0 * read + x


class MixtureCross(nn.Module):
    """``sum over experts of gate_e(x) * x0 * (U_e tanh(C_e tanh(V_e x)) + b) + x``, gates by softmax.

    ``read`` holds every ``V_e`` and, last, the gates.
    """

    def __init__(self, width: int, experts: int, rank: int) -> None:
        super().__init__()
        self.experts, self.rank = experts, rank
        self.read = nn.Linear(width, experts * rank + experts)
        self.inner = nn.Parameter(torch.eye(rank).repeat(experts, 1, 1))
        self.out = nn.Linear(experts * rank, width)
        nn.init.normal_(torch.as_tensor(self.out.weight), std=START)
        nn.init.zeros_(torch.as_tensor(self.out.bias))

    def finish(self, x0: torch.Tensor, x: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """``(B, n, width)``, where ``read`` is what ``self.read`` makes of ``x``."""
        low, gate = read[..., : self.experts * self.rank], read[..., self.experts * self.rank :]
        low = torch.tanh(low).reshape(*low.shape[:-1], self.experts, self.rank)
        inner = torch.tanh(torch.einsum("...er,ers->...es", low, self.inner))
        weighed = (torch.softmax(gate, dim=-1)[..., None] * inner).flatten(-2)
        return x0 * self.out(weighed) + x


Cross = FullCross | MixtureCross
