"""Minimise a loss over batches of training rows by Adam, and stop when a tenth that is held out gets no better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from eccos_core.io.optional import needs_extra

if TYPE_CHECKING:
    import torch

MAX_EPOCHS, BATCH, PATIENCE = 100, 128, 5
LEARNING_RATE = 3e-3


def minimise(
    parameters: Sequence[torch.Tensor],
    loss: Callable[[torch.Tensor], torch.Tensor],
    rows: int,
    generator: torch.Generator,
    weight_decay: float,
) -> None:
    """Change the parameters in place. `loss` takes indices (B,) of rows and returns a scalar."""
    with needs_extra("local", "an evaluation baseline"):
        import torch

    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, weight_decay=weight_decay)
    order = torch.randperm(rows, generator=generator)
    held_out, rest = order[: rows // 10], order[rows // 10 :]
    best, best_loss, waited = [each.detach().clone() for each in parameters], float("inf"), 0
    for _ in range(MAX_EPOCHS):
        shuffled = rest[torch.randperm(len(rest), generator=generator)]
        for batch in torch.split(shuffled, BATCH):
            optimiser.zero_grad()
            loss(batch).backward()  # type: ignore[no-untyped-call]  # torch ships this one untyped
            optimiser.step()
        with torch.no_grad():
            now = float(loss(held_out if len(held_out) else rest))
        waited += 1
        if now < best_loss - 1e-4:
            best, best_loss, waited = [each.detach().clone() for each in parameters], now, 0
        if waited == PATIENCE:
            break
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)
