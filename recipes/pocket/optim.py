"""Muon for matrices beside AdamW for everything else, with an EMA of the weights.

Muon: momentum, then five Newton-Schulz steps bring the update near an orthogonal matrix (Jordan et
al. 2024, "Muon"), scaled by .2 * sqrt(largest side) so that one learning rate suits both
(Liu et al. 2025, "Muon is scalable"). Convolution weights are taken as `[O, I·k·k]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_NS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Newton-Schulz on a stack `[n, O, I]`, in bfloat16: singular values come near 1."""
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _NS
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """See the module's contract. All parameters must have at least two dimensions."""

    def __init__(self, params: list[nn.Parameter], lr: float, *, decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; equal shapes are orthogonalised together."""
        assert closure is None, "closures are not used here"
        for group in self.param_groups:
            stacks: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(m, group["momentum"]).flatten(1)
                stacks.setdefault(update.shape, []).append((p, update))
            for shape, pairs in stacks.items():
                updates = orthogonalise(torch.stack([u for _, u in pairs]))
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["decay"])
                    p.add_(update.view_as(p), alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)


class Optimisers:
    """The pair, stepped together with a common factor on their learning rates."""

    def __init__(
        self, model: nn.Module, is_matrix: Callable[[str, Tensor], bool], *, muon_lr: float, adam_lr: float
    ) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if is_matrix(n, p)]
        others = [p for n, p in named if not is_matrix(n, p)]
        self.muon = Muon(matrices, muon_lr)
        self.adam = torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)
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
    torch._foreach_lerp_([ema[n] for n in names], [current[n] for n in names], rate)


def rate_factor(step: int, *, warm_up: int, total: int, decay: int, floor: float = 0.03) -> float:
    """Linear warm-up, constant, then linear decay over the last `decay` of `total` steps."""
    if step < warm_up:
        return (step + 1) / warm_up
    if decay <= 0 or step < total - decay:
        return 1.0
    return floor + (1 - floor) * max(0.0, (total - step) / decay)
