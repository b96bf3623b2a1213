"""Muon for matrices beside AdamW for everything else, with an EMA of the weights.

Muon: momentum, then five Newton-Schulz steps bring the update near an orthogonal matrix (Jordan et
al. 2024, "Muon"), scaled by .2 * sqrt(largest side) so that one learning rate suits both
(Liu et al. 2025, "Muon is scalable"). Convolution weights are taken as `[O, I·k·k]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_NS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Newton-Schulz on `[O, I]`, in bfloat16: singular values come near 1."""
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T.contiguous() if tall else x
    x = x / (x.norm() + 1e-7)
    a, b, c = _NS
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).float()


def _shared(updates: list[Tensor]) -> list[Tensor]:
    """Orthogonalised updates; the processes of a run split the work and exchange the results."""
    if not dist.is_initialized():
        return [orthogonalise(u) for u in updates]
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = [
        orthogonalise(u).flatten() if i % ranks == rank else torch.zeros(u.numel())
        for i, u in enumerate(updates)
    ]
    flat = torch.cat(mine)
    dist.all_reduce(flat)
    parts = flat.split([u.numel() for u in updates])
    return [part.view_as(u) for part, u in zip(parts, updates, strict=True)]


class Muon(torch.optim.Optimizer):
    """See the module's contract. All parameters must have at least two dimensions."""

    def __init__(self, params: list[nn.Parameter], lr: float, *, decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "closures are not used here"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            updates = [self._momentum(p, group["momentum"]) for p in params]
            for p, update in zip(params, _shared(updates), strict=True):
                p.mul_(1 - group["lr"] * group["decay"])
                size = 0.2 * max(update.shape) ** 0.5
                p.add_(update.view_as(p), alpha=-group["lr"] * size)

    def _momentum(self, p: Tensor, beta: float) -> Tensor:
        """Nesterov momentum of the gradient, as a matrix."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        m = state["momentum"].lerp_(p.grad, 1 - beta)
        return p.grad.lerp(m, beta).flatten(1)


class Optimisers:
    """The pair, stepped together with a common factor on their learning rates."""

    def __init__(
        self,
        model: nn.Module,
        is_matrix: Callable[[str, Tensor], bool],
        *,
        muon_lr: float,
        adam_lr: float,
    ) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if is_matrix(n, p)]
        others = [p for n, p in named if not is_matrix(n, p)]
        self.muon = Muon(matrices, muon_lr)
        self.adam = torch.optim.AdamW(
            others, adam_lr, betas=(0.9, 0.98), weight_decay=0.0, foreach=True
        )
        self._rates = (muon_lr, adam_lr)
        self.parameters = matrices + others

    def step(self, factor: float) -> None:
        """Clip to norm 1, update both with `factor` times their rate, clear gradients."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, rate in zip((self.muon, self.adam), self._rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """State of both, for a checkpoint."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], model: nn.Module, step: int, decay: float = 0.998) -> None:
    """Move the averaged weights towards the model's; early on the average is short."""
    rate = 1.0 - min(decay, 1.0 - 1.0 / (1.0 + 0.15 * step))
    current = model.state_dict()
    names = [n for n, t in ema.items() if t.is_floating_point()]
    old, new = [ema[n] for n in names], [current[n] for n in names]
    torch._foreach_lerp_(old, new, rate)  # pyright: ignore[reportPrivateImportUsage]


def rate_factor(step: int, *, warm_up: int, total: int, decay: int, floor: float = 0.03) -> float:
    """Linear warm-up, constant, then linear decay over the last `decay` of `total` steps."""
    if step < warm_up:
        return (step + 1) / warm_up
    if decay <= 0 or step < total - decay:
        return 1.0
    return floor + (1 - floor) * max(0.0, (total - step) / decay)
