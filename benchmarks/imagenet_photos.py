"""How well the checkpoint `imagenet` knows photos of its kinds, by each resize rule, and what its temperature does.

python -m benchmarks.imagenet_photos FOLDER

FOLDER holds train and test, in each of them folders of photos that are named like classes of the network. The
temperature is fitted on train and measured on test; its figures are those in model/imagenet.py.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from torchlight.model.imagenet import ARCHITECTURE, build_published_network, read_class_names
from torchlight.model.images import RESIZE_RULES, ImageSpec
from torchlight.model.network import default_image_size, published_image_spec
from torchlight.training.data.loading import load_dataset
from torchlight.training.evaluation.calibration import Calibration, fit_temperature, measure_calibration
from torchlight.training.evaluation.classification_metrics import infer

SPLITS = ("train", "test")
BATCH_SIZE = 32


def main() -> None:
    """Measure and print."""
    network = build_published_network()
    spec = published_image_spec(ARCHITECTURE, default_image_size(ARCHITECTURE))
    shares = Table("resize rule", "photos", "number", "top 1", "top 5", box=None)
    temperatures = Table(
        "resize rule", "temperature", "ECE without", "with", "by chance", "NLL without", "with", box=None
    )
    for rule in RESIZE_RULES:
        found = Answers(network, replace(spec, resize=rule), sys.argv[1])
        for name, rows in found.parts():
            shares.add_row(rule, name, str(len(rows)), *(f"{found.share(rows, k):.1%}" for k in (1, 5)))
        fitted = found.calibrate()
        temperatures.add_row(
            rule,
            f"{fitted.temperature:.3f}",
            *(f"{share:.2%}" for share in (fitted.ece_before, fitted.ece_after, fitted.ece_by_chance)),
            *(f"{loss:.4f}" for loss in (fitted.nll_before, fitted.nll_after)),
        )
    console = Console(width=140)
    console.print(shares)
    console.print(temperatures)


class Answers:
    """The logits of a network for all photos of a source, resized by one rule.

    Attributes:
        logits: (N, K), train before test.
        labels: (N,).
        numbers: of photos, by split.
    """

    def __init__(self, network: nn.Module, spec: ImageSpec, source: str) -> None:
        dataset = load_dataset(source, spec.resizing, class_names=read_class_names(), val_fraction=0, test_fraction=0)
        parts = [dataset.splits[name] for name in SPLITS]
        self.class_names = dataset.class_names
        self.logits = torch.cat([infer(network, part.images, spec, BATCH_SIZE) for part in parts])
        self.labels = torch.cat([part.labels for part in parts])
        self.numbers = [len(part) for part in parts]

    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and rows of each class in each split, and of the whole split."""
        for split, rows in zip(SPLITS, torch.arange(len(self.labels)).split(self.numbers), strict=True):
            for label in self.labels[rows].unique():
                yield f"{split}: {self.class_names[label]}", rows[self.labels[rows] == label]
            yield split, rows

    def share(self, rows: Tensor, k: int) -> float:
        """Return how many of the photos have their label among the ``k`` most probable ones, in [0, 1]."""
        best = self.logits[rows].topk(k).indices  # (n, k)
        return (best == self.labels[rows, None]).any(1).double().mean().item()

    def calibrate(self) -> Calibration:
        """Return what the temperature that fits train does to test."""
        (logits, unseen), (labels, truth) = self.logits.split(self.numbers), self.labels.split(self.numbers)
        temperature = fit_temperature(logits, labels)
        return measure_calibration(unseen, unseen / temperature, truth, temperature)


if __name__ == "__main__":
    main()
