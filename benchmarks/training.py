"""Speed of our training loop on our network: against a plain loop, and against the machine's own peak.

The plain loop is the same network trained as torchvision's reference scripts write it: a DataLoader with two workers,
transforms image by image, float32, contiguous memory. The peak is what one multiplication of large square matrices
reaches, in float32 and in bfloat16. All are measured in turn, round after round in one process, so that a machine that
is busy for a while slows all of them; the figures are medians over the rounds, and the ratios are what to quote.

Images are noise: what is in them does not change the speed. One step before the clock starts does not count, nor does
validation.

    python -m benchmarks.training [--rounds 3] [--out figures.json]
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.training.config import Precision, TrainingConfig, default_optimizer
from torchlight.training.data.loading import LabelledImages
from torchlight.training.optimisation.loop import StepResult, Training, best_precision
from torchlight.training.optimisation.malloc_settings import raise_malloc_thresholds

NUM_CLASSES = 10
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # about CIFAR-10's
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Workload:
    """How much is measured in one round.

    Attributes:
        steps: weight updates on the clock; one more comes before.
        matrix_size: side of the matrices whose product is the machine's peak.
        workers: processes that prepare the plain loop's images; 0 prepares them in its own.
    """

    batch_size: int = 512
    steps: int = 5
    image_size: int = 32
    matrix_size: int = 4096
    workers: int = 2
    architecture: str = "torchlight"

    @property
    def images(self) -> int:
        """Images that one loop sees in one round."""
        return self.batch_size * (self.steps + 1)


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds.

    Attributes:
        precision: of our loop; the plain one is always float32.
        flops_per_image: floating-point operations of one image, forward and backward.
        ours, plain: images per second.
        peaks: FLOP/s of the matrix product.
    """

    precision: Precision
    flops_per_image: int
    ours: float
    plain: float
    peaks: dict[Precision, float]

    @property
    def speedup(self) -> float:
        """Our images/s in units of the plain loop's."""
        return self.ours / self.plain

    def share(self, images_per_s: float, precision: Precision) -> float:
        """Return the share of a peak that a loop's useful arithmetic reaches."""
        return images_per_s * self.flops_per_image / self.peaks[precision]


class PictureSet(Dataset[tuple[Tensor, int]]):
    """Arrays in memory that become a picture and go through transforms one by one, as torchvision's CIFAR10 does."""

    def __init__(
        self, pixels: NDArray[np.uint8], labels: list[int], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self._pixels, self._labels, self._transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


def measure(workload: Workload, rounds: int) -> Figures:
    """Return the figures of this machine as it is now; the loops use all the threads that torch was given."""
    precision = best_precision(torch.device("cpu"))
    train = noise(workload)
    ours, plain = [], []
    peaks: dict[Precision, list[float]] = {name: [] for name in DTYPES}
    for _ in range(rounds):
        for name in DTYPES:
            peaks[name].append(peak(workload.matrix_size, DTYPES[name]))
        ours.append(our_loop(workload, train, precision))
        plain.append(plain_loop(workload, train))
    return Figures(
        precision,
        count_flops(workload),
        statistics.median(ours),
        statistics.median(plain),
        {name: statistics.median(values) for name, values in peaks.items()},
    )


def noise(workload: Workload) -> LabelledImages:
    """Return seeded noise with random labels, enough for one round."""
    generator = torch.Generator().manual_seed(0)
    shape = (workload.images, 3, workload.image_size, workload.image_size)
    return LabelledImages(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        torch.randint(0, NUM_CLASSES, (workload.images,), generator=generator),
    )


def network(workload: Workload) -> nn.Module:
    """Return freshly initialised weights in training mode."""
    return build_network(NetworkConfig(workload.architecture, NUM_CLASSES))


def our_loop(workload: Workload, train: LabelledImages, precision: Precision) -> float:
    """Return images/s of one epoch of :class:`training.optimisation.loop.Training`, as ``torchlight train`` runs it."""
    config = TrainingConfig(
        epochs=1,
        batch_size=workload.batch_size,
        optimizer=default_optimizer(workload.architecture, pretrained=False),
        precision=precision,
    )
    spec = ImageSpec(workload.image_size, MEAN, STD)
    ends: list[float] = []

    def note(_: StepResult) -> None:
        ends.append(time.perf_counter())

    val = LabelledImages(train.images[:1], train.labels[:1])
    for _ in Training(network(workload), train, spec, config).epochs(val, note):
        pass
    return images_per_s(workload, ends)


def plain_loop(workload: Workload, train: LabelledImages) -> float:
    """Return images/s of the loop that people write first."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(workload.image_size, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    pictures = PictureSet(train.images.permute(0, 2, 3, 1).contiguous().numpy(), train.labels.tolist(), transform)
    loader = DataLoader(pictures, workload.batch_size, shuffle=True, num_workers=workload.workers, drop_last=True)
    learner = network(workload).train()
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    ends: list[float] = []
    for images, labels in loader:
        loss = criterion(learner(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        ends.append(time.perf_counter())
    return images_per_s(workload, ends)


def images_per_s(workload: Workload, ends: list[float]) -> float:
    """Return the speed after the first step, given when each one ended."""
    assert len(ends) == workload.steps + 1, f"{len(ends)} steps were taken, not {workload.steps + 1}"
    return workload.steps * workload.batch_size / (ends[-1] - ends[0])


def peak(size: int, dtype: torch.dtype) -> float:
    """Return FLOP/s of one (size, size) x (size, size) matrix product, the best of three."""
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def count_flops(workload: Workload) -> int:
    """Return the operations of convolutions and matrix products for one image, forward and backward.

    Counted as PyTorch runs them: the first layer has no gradient of its input.
    """
    images = torch.zeros(2, 3, workload.image_size, workload.image_size)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(network(workload)(images), torch.zeros(2, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
    total: int = counter.get_total_flops()
    return total // 2


def table(figures: Figures) -> Table:
    """Return one row for each thing measured, and the ratios."""
    result = Table("", "images/s", "GFLOP/s", "of float32 peak", f"of {figures.precision} peak", box=None)
    for name, speed in ((f"our loop, {figures.precision}", figures.ours), ("plain loop, float32", figures.plain)):
        result.add_row(
            name,
            f"{speed:.0f}",
            f"{speed * figures.flops_per_image / 1e9:.0f}",
            f"{figures.share(speed, 'float32'):.0%}",
            f"{figures.share(speed, figures.precision):.0%}",
        )
    for precision, value in figures.peaks.items():
        result.add_row(f"matrix product, {precision}", "", f"{value / 1e9:.0f}", "", "")
    result.add_row("ours / plain", f"{figures.speedup:.2f}", "", "", "")
    return result


def as_json(figures: Figures, workload: Workload, rounds: int) -> str:
    """Return everything in the table, and on what it was measured."""
    document = {
        "rounds": rounds,
        "batch_size": workload.batch_size,
        "steps": workload.steps,
        "precision": figures.precision,
        "flops_per_image": figures.flops_per_image,
        "images_per_s": {"ours": figures.ours, "plain": figures.plain},
        "peak_flop_per_s": figures.peaks,
        "ours_to_plain": figures.speedup,
        "ours_of_float32_peak": figures.share(figures.ours, "float32"),
        "ours_of_own_peak": figures.share(figures.ours, figures.precision),
        "plain_of_float32_peak": figures.share(figures.plain, "float32"),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    return json.dumps(document, indent=2) + "\n"


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Times that everything is measured, in turn.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Weight updates on the clock, each loop, each round.")] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Measure the training loop in two to four minutes on two cores."""
    raise_malloc_thresholds()  # as the command does; the plain loop has it too, since it is one process
    workload = Workload(steps=steps)
    figures = measure(workload, rounds)
    Console().print(table(figures))
    if out is not None:
        out.write_text(as_json(figures, workload, rounds))


if __name__ == "__main__":
    typer.run(main)
