"""Weight updates: plain stochastic gradient descent, and Muon for the filters of networks with batch norm."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchlight.training.config import TrainingConfig


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer for all parameters of ``network`` as ``config.optimizer`` says.

    ``sgd`` decays matrices and filters, but not vectors (biases, batch norm). ``muon`` gives convolution filters to
    :class:`Muon` and the rest to undecayed gradient descent.
    """
    filters = [p for p in network.parameters() if p.ndim == 4]
    others = [p for p in network.parameters() if p.ndim != 4]
    sgd_rate = config.learning_rate * config.batch_size / 512
    if config.optimizer == "muon":
        groups: list[dict[str, Any]] = [
            {"params": filters, "lr": config.muon_learning_rate, "orthogonal": True},
            {"params": others, "lr": sgd_rate, "momentum": config.momentum},
        ]
        return Muon(groups)
    decay = [{"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": config.weight_decay}]
    plain = [{"params": [p for p in network.parameters() if p.ndim <= 1]}]
    return torch.optim.SGD(decay + plain, lr=sgd_rate, momentum=config.momentum, nesterov=config.momentum > 0)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for filters; Nesterov gradient descent for groups without ``orthogonal``.

    Each filter bank (C_out, C_in, kH, kW) is treated as a matrix (C_out, C_in * kH * kW). Its momentum is pushed
    towards the nearest matrix with all singular values 1, so that every direction learns at the same pace. Before each
    step the bank is scaled to norm sqrt(C_out): batch norm undoes the scale, and the step keeps its size relative to
    the weights.

    Args:
        groups: parameter groups; ``lr`` each, ``orthogonal`` (default False), ``momentum`` (default 0.6, which suits
            orthogonal steps).

    Source: Jordan et al.: Muon: An optimizer for hidden layers in neural networks, 2024; the normalisation and momentum
    as in the CIFAR-10 recipe airbench94_muon of the same author.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": 0.6, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum: Tensor = state["momentum_buffer"]
                momentum.mul_(group["momentum"]).add_(parameter.grad)
                update = parameter.grad.add(momentum, alpha=group["momentum"])
                if group["orthogonal"]:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    update = orthogonalise(update.flatten(1)).view_as(parameter)
                parameter.add_(update, alpha=-group["lr"])


def orthogonalise(matrix: Tensor, steps: int = 3) -> Tensor:
    """Return a matrix with the same singular vectors and singular values near 1 (about 0.7 to 1.2).

    Newton-Schulz iteration with a quintic polynomial; needs only matrix products. Singular values below about 1% of
    the largest stay small with three steps.

    Args:
        matrix: (m, n) floating point, not zero.

    Source: the coefficients are those of Jordan et al., 2024.
    """
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x
