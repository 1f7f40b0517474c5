"""What test_distributed.py computes once in one process and once, as a program for torchrun, in two."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.training.config import TrainingConfig
from torchlight.training.data.loading import LabelledImages
from torchlight.training.optimisation.distributed import Processes, join
from torchlight.training.optimisation.loop import Training

RUNS = {
    "default network": (
        "torchlight",
        TrainingConfig(epochs=2, batch_size=16, optimizer="muon", muon_learning_rate=0.01),
    ),
    "default network, sgd": ("torchlight", TrainingConfig(epochs=2, batch_size=16, learning_rate=0.2)),
    "guide": ("guide", TrainingConfig(epochs=3, batch_size=16, learning_rate=0.5)),
    "lenet5, frozen first": ("lenet5", TrainingConfig(epochs=3, batch_size=16, learning_rate=4.0, frozen_epochs=1)),
    "bfloat16": ("torchlight", TrainingConfig(epochs=1, batch_size=16, precision="bfloat16")),
}
COLOURS = ((220, 30, 40), (40, 200, 60), (60, 90, 230))


def draw(number: int, seed: int) -> LabelledImages:
    """Return noisy pictures of three colours, which vary so much that some are mistaken."""
    labels, generator = torch.arange(number) % 3, torch.Generator().manual_seed(seed)
    tint = 90 * torch.randn(number, 3, 1, 1, generator=generator)
    noise = 40 * torch.randn(number, 3, 32, 32, generator=generator)
    return LabelledImages((torch.tensor(COLOURS)[labels][..., None, None] + tint + noise).clamp(0, 255).byte(), labels)


def train(name: str, processes: Processes) -> dict[str, Any]:
    """Return the curve of a run, with an odd number of validation images, and its weights."""
    architecture, config = RUNS[name]
    torch.manual_seed(0)
    network = build_network(NetworkConfig(architecture, 3))
    spec = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    training = Training(network, draw(64, 0), spec, config, processes=processes)
    curve = [
        (one.train_loss, one.train_accuracy, one.val_loss, one.val_accuracy) for one in training.epochs(draw(13, 1))
    ]
    return {"curve": torch.tensor(curve), "weights": {k: v.clone() for k, v in network.state_dict().items()}}


def normalise(processes: Processes) -> dict[str, Tensor]:
    """Return everything that batch norm computes in two steps, in float64; its input has a mean far from zero."""
    network = processes.share_batch_norm(nn.Sequential(nn.BatchNorm2d(3, dtype=torch.float64))).train()
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for step in range(2):
        images = 100 + 3 * torch.randn(8, 3, 5, 4, generator=generator, dtype=torch.float64)
        own = images[processes.own_part(8)].requires_grad_()
        output = network(own)
        output.sin().sum().backward()
        found |= {f"output {step}": processes.gather(output.detach()), f"gradient {step}": processes.gather(own.grad)}
    sums = {name: processes.mean(one.grad) * processes.number for name, one in network.named_parameters()}
    evaluated = network.eval()(images)
    return found | sums | network.state_dict() | {"evaluated": evaluated.detach()}


def compute(processes: Processes) -> dict[str, Any]:
    return {
        "runs": {name: train(name, processes) for name in RUNS},
        "batch norm": normalise(processes),
        "gathered": processes.gather(torch.arange(7)[processes.own_part(7)]),
        "mean": processes.mean(torch.tensor([1.0 + processes.rank])),
        "claims": [processes.is_any(processes.rank == rank) for rank in (0, 1, 2)],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join(torch.device("cpu")) as processes:
        found = compute(processes)
        if processes.rank == 0:
            torch.save(found, sys.argv[1])
