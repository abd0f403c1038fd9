"""Where DCN-V2 starts from: the linear model that best orders the training requests.

A conditional logit, convex, found by L-BFGS: the positives of a request in the softmax over its candidates, every
request counting alike, as it does in NDCG. With a few hundred users a network that starts
at random spends its epochs on finding this; one that starts here spends them on what a linear model cannot say.
"""

from __future__ import annotations

import torch

RIDGE = 1e-3
STEPS = 40


def fit(inputs: torch.Tensor, liked: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """``(k,)`` weights over ``inputs`` ``(r, n, k)``; ``liked`` and ``there`` are masks ``(r, n)``."""
    weight = torch.zeros(inputs.shape[2], requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = listwise_loss(inputs @ weight, liked, there) + RIDGE * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # torch leaves L-BFGS untyped
    return weight.detach()


def listwise_loss(score: torch.Tensor, liked: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """The mean over requests of the mean cross-entropy of their positives in the softmax over their candidates.

    Each request counts alike: summed over positives instead, the few users who like hundreds of items decide all.
    """
    positives = liked.float()
    chance = torch.log_softmax(score.masked_fill(~there, -1e9), dim=1)
    return -((chance * positives).sum(dim=1) / positives.sum(dim=1).clamp(min=1.0)).mean()
