"""Batch norm over a batch that is divided among processes, on the CPU: torch's own, SyncBatchNorm, is for GPUs only."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class SharedBatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the mean and variance of all processes' parts, which are of equal size.

    Same parameters, buffers and names. In the backward pass the input gets the gradient of all processes' losses added
    up, since each part moves the mean and variance of all. Weight and bias get the gradient of this process's loss
    alone, as other layers do: DistributedDataParallel averages it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        mean, variance = _shared_moments(x.to(self.weight.dtype))  # bfloat16 under autocast
        self._follow(mean, variance, x.numel() // x.shape[1] * dist.get_world_size())
        result: Tensor = _Normalisation.apply(x, self.weight, self.bias, mean, variance, self.eps)
        return result

    def _follow(self, mean: Tensor, variance: Tensor, positions: int) -> None:
        """Move the running statistics towards the batch's; they hold the unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * positions / (positions - 1), share)


class _Normalisation(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are those of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Take the gradient as if mean and variance were constants, less the part through them: offset + slope * x."""
        x, weight, bias, mean, variance = ctx.saved_tensors
        with torch.enable_grad():  # torch's own backward pass, for the price of one forward pass more
            own = [value.detach().requires_grad_() for value in (x, weight, bias)]
            output = F.batch_norm(own[0], mean, variance, own[1], own[2], eps=ctx.eps)
        of_x, of_weight, of_bias = torch.autograd.grad(output, own, gradients[0])
        # Mean over all processes' N * H * W positions of the gradient, and of its product with the normalised x: (C,).
        mean_product, mean_gradient = _average(torch.stack([of_weight, of_bias])) / (x.numel() // x.shape[1])
        scale = (variance + ctx.eps).rsqrt()  # (C,)
        slope = weight * scale.square() * mean_product
        offset = weight * scale * mean_gradient - slope * mean
        correction = torch.addcmul(_over_channels(offset), x, _over_channels(slope))
        return of_x - correction.to(of_x.dtype), of_weight, of_bias, None, None, None


def share_statistics(network: nn.Module) -> nn.Module:
    """Replace, in place, every batch norm by one over all processes' parts; parameters and buffers stay the same."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            for own_name, buffer in child.named_buffers():
                setattr(shared, own_name, buffer)
            setattr(network, name, shared.train(child.training))
        else:
            share_statistics(child)
    return network


@torch.no_grad()
def _shared_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) of all processes' x, combined in float64 so that nothing cancels."""
    own_variance, own_mean = (moment.double() for moment in torch.var_mean(x, (0, 2, 3), correction=0))
    mean, square = _average(torch.stack([own_mean, own_variance + own_mean.square()]))
    return mean.to(x.dtype), (square - mean.square()).clamp(min=0).to(x.dtype)


def _average(values: Tensor) -> Tensor:
    dist.all_reduce(values)
    return values / dist.get_world_size()


def _over_channels(values: Tensor) -> Tensor:
    return values[None, :, None, None]
