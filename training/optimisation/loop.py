"""The guide's four steps, over and over: forward pass, loss, backward pass, weight update.

No files, no prints: :meth:`Training.epochs` yields what happened, its caller decides what to keep and what to show. A
run can be interrupted after any step and resumed from :meth:`Training.state`; on one machine's CPU it then ends with
the very same weights.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchlight.model.errors import TorchlightError
from torchlight.model.images import ImageSpec, normalise
from torchlight.model.network import classifier_head, count_multiply_adds
from torchlight.training.config import Precision, Schedule, TrainingConfig
from torchlight.training.data.loading import LabelledImages
from torchlight.training.evaluation.classification_metrics import infer
from torchlight.training.optimisation.augmentation import alternating_flip, cutout, shift
from torchlight.training.optimisation.distributed import Processes
from torchlight.training.optimisation.optimizer import build_optimizer

NO_BATCHES = torch.empty(0, 2, dtype=torch.float64)


class TrainingDiverged(TorchlightError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class StepResult:
    """One weight update: its place in the run, and loss and accuracy of its batch before the update."""

    step: int
    steps_per_epoch: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class EpochResult:
    """One pass over the training images.

    ``train_loss`` and ``train_accuracy`` are means over the batches as they were trained on (augmented, weights still
    moving); ``val_loss`` is plain cross-entropy.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


def best_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """Return the epoch to keep: the highest validation accuracy, then the lowest validation loss, then the earliest.

    Ties in accuracy are usual: it has only as many values as there are validation images.

    Args:
        history: at least one epoch, in order.
    """

    def rank(result: EpochResult) -> tuple[float, float]:
        return result.val_accuracy, -result.val_loss if math.isfinite(result.val_loss) else -math.inf

    return max(history, key=rank)  # max takes the first of equals


class Training:
    """A network on its way through ``config.epochs`` passes over the training images.

    Attributes:
        network: the one that learns.
        steps_per_epoch: whole batches in the training images.
    """

    def __init__(
        self,
        network: nn.Module,
        train: LabelledImages,
        spec: ImageSpec,
        config: TrainingConfig,
        *,
        class_weights: Tensor | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Prepare to train ``network`` in place, on the device it is on.

        Args:
            network: in training or evaluation mode; :meth:`epochs` leaves it in evaluation mode whenever it yields.
            train: at least ``config.batch_size`` images, the same in every process.
            class_weights: (K,) float32, how much the loss of each class counts; without it, all the same.
            processes: that share each batch; without it, this one alone.
        """
        self._processes = processes or Processes()
        self.network = self._processes.share_batch_norm(network.to(memory_format=torch.channels_last))
        self._train, self._spec, self._config = train, spec, config
        self._device = next(network.parameters()).device
        self.steps_per_epoch = len(train) // config.batch_size
        self._optimizer = build_optimizer(network, config)
        self._peaks = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._class_weights = None if class_weights is None else class_weights.to(self._device)
        # of all randomness but dropout's, see _seeded_globally
        self._generator = torch.Generator().manual_seed(config.seed)
        self._starts_mirrored = torch.rand(len(train), generator=self._generator) < 0.5
        self._order = torch.empty(0, dtype=torch.int64)
        self._step = 0  # weight updates done since the beginning
        self._batches = NO_BATCHES  # (batches done, 2) loss and accuracy of each batch of the epoch under way
        self._began = 0.0  # when the epoch under way began, by time.perf_counter, without interruptions

    def epochs(
        self, val: LabelledImages, on_step: Callable[[StepResult], None] = lambda _: None
    ) -> Iterator[EpochResult]:
        """Train to the end, yielding after each epoch.

        Args:
            val: the images that choose the epoch, the same in every process.
            on_step: called after each weight update.

        Raises:
            TrainingDiverged: the loss became infinite or not a number.
        """
        while self._step < self._config.epochs * self.steps_per_epoch or len(self._batches):
            if not len(self._batches):
                self._began = time.perf_counter()
            self._train_epoch(on_step)
            loss, accuracy = self._batches.mean(0).tolist()
            val_loss, val_accuracy = self._validate(val)
            self._batches = NO_BATCHES  # from here on, the epoch is finished in state() too
            yield EpochResult(
                epoch=self._step // self.steps_per_epoch,
                train_loss=loss,
                train_accuracy=accuracy,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                learning_rate=self._peaks[0] * self.rate_factor(self._step - 1),
                seconds=time.perf_counter() - self._began,
            )

    def state(self) -> dict[str, Tensor]:
        """Return everything that the rest of the run depends on, as it is now; the tensors are copies."""
        momenta = {
            f"optimizer/{index}": self._optimizer.state[parameter]["momentum_buffer"]
            for index, parameter in enumerate(_parameters(self._optimizer))
            if "momentum_buffer" in self._optimizer.state[parameter]
        }
        weights = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        seconds = time.perf_counter() - self._began if len(self._batches) else 0.0
        own = {
            "generator": self._generator.get_state(),
            "starts_mirrored": self._starts_mirrored,
            "order": self._order,
            "step": torch.tensor(self._step),
            "batches": self._batches,
            "seconds": torch.tensor(seconds, dtype=torch.float64),
        }
        return {name: value.detach().cpu().clone() for name, value in (weights | momenta | own).items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Resume the run where :meth:`state` was called, with the same network, images and config."""
        prefix = "network/"
        self.network.load_state_dict(
            {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        )
        for index, parameter in enumerate(_parameters(self._optimizer)):
            if f"optimizer/{index}" in state:
                momentum = state[f"optimizer/{index}"].to(self._device).clone(memory_format=torch.preserve_format)
                self._optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        self._generator.set_state(state["generator"].clone())
        self._starts_mirrored = state["starts_mirrored"].clone()
        self._order, self._batches = state["order"].clone(), state["batches"].clone()
        self._step = int(state["step"])
        self._began = time.perf_counter() - float(state["seconds"])

    def rate_factor(self, step: int) -> float:
        """Return the share of the peak learning rates at a step, counted from 0."""
        total_steps = self._config.epochs * self.steps_per_epoch
        return learning_rate_factor(step, total_steps, self._config.warmup, self._config.schedule)

    def cost(self, history: Sequence[EpochResult]) -> dict[str, int]:
        """Return what the finished epochs took: seconds, and floating-point operations of all their steps."""
        multiply_adds = count_multiply_adds(self.network, self._spec.size)  # of the forward pass of one image
        seen = len(history) * self.steps_per_epoch * self._config.batch_size
        return {
            "seconds": round(sum(result.seconds for result in history)),
            "multiply_adds_per_image": multiply_adds,
            "flops": 2 * 3 * multiply_adds * seen,  # one multiply-add is 2; backward costs about twice the forward pass
        }

    def _train_epoch(self, on_step: Callable[[StepResult], None]) -> None:
        """Train the batches of an epoch that are not done yet."""
        done = len(self._batches)
        epoch = (self._step - done) // self.steps_per_epoch  # counted from 0
        if done == 0:
            self._order = torch.randperm(len(self._train), generator=self._generator)  # (N,)
        _freeze(self.network, epoch < self._config.frozen_epochs)
        shared = self._processes.average_gradients(self.network)
        for _ in range(done, self.steps_per_epoch):
            loss, accuracy = self._update(shared, epoch)
            self._batches = torch.cat([self._batches, torch.tensor([[loss, accuracy]], dtype=torch.float64)])
            on_step(StepResult(self._step, self.steps_per_epoch, loss, accuracy))
        self.network.eval()

    def _update(self, shared: nn.Module, epoch: int) -> tuple[float, float]:
        """Take one step down the loss of the next batch; return that loss and the accuracy before it."""
        size, start = self._config.batch_size, self._step % self.steps_per_epoch * self._config.batch_size
        images, labels = self._batch(self._order[start : start + size], epoch)
        factor = self.rate_factor(self._step)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

        with (
            self._seeded_globally(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"),
        ):
            logits = shared(images)  # forward pass: (n, 3, S, S) -> (n, K), n of this process
        loss = self._loss(logits.float(), labels)
        figures = self._processes.mean(torch.stack([loss.detach(), (logits.argmax(1) == labels).float().mean()]))
        if not torch.isfinite(figures[0]):
            raise TrainingDiverged(
                f"loss is {figures[0].item()} at epoch {epoch + 1}, step {start // size + 1}; "
                f"lower the learning rate (it is {self._optimizer.param_groups[0]['lr']:.3g})"
            )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # backward pass
        self._optimizer.step()  # weight update
        self._step += 1
        loss_value, accuracy = figures.tolist()
        return loss_value, accuracy

    @contextmanager
    def _seeded_globally(self) -> Iterator[None]:
        """Seed torch's global generator, the only one dropout uses, by seed and step; restore it afterwards."""
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(self._config.seed + self._step * self._processes.number + self._processes.rank)
            yield

    def _batch(self, chosen: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of a batch, augmented: (N, 3, S, S) float32 normalised, and (N,) labels."""
        limit = self._config.shift
        offsets = torch.randint(-limit, limit + 1, (len(chosen), 2), generator=self._generator)
        centres = torch.randint(self._spec.size, (len(chosen), 2), generator=self._generator)
        # Every process has drawn for the whole batch and uses its part: their number does not change the augmentation.
        own = self._processes.own_part(len(chosen))
        chosen, offsets, centres = chosen[own], offsets[own], centres[own]
        images = normalise(self._train.images[chosen].to(self._device), self._spec)  # (n, 3, S, S) float32
        images = shift(images, offsets, limit)
        images = cutout(images, centres, self._config.cutout)
        if self._config.flip:
            images = alternating_flip(images, self._starts_mirrored[chosen].to(self._device), epoch)
        return images.contiguous(memory_format=torch.channels_last), self._train.labels[chosen].to(self._device)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self._config.loss == "mse":
            losses = half_squared_errors(logits, labels)
        else:
            losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self._config.label_smoothing)
        # losses: (n,), one for each image
        return losses.mean() if self._class_weights is None else (losses * self._class_weights[labels]).mean()

    def _validate(self, val: LabelledImages) -> tuple[float, float]:
        # Each process runs its part; together (N, K), the same in all of them.
        logits = self._processes.gather(infer(self.network, val.images[self._processes.own_part(len(val))], self._spec))
        loss = F.cross_entropy(logits, val.labels).item()
        return loss, (logits.argmax(1) == val.labels).float().mean().item()


def half_squared_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the guide's other loss for each image: half the squared distance of its probabilities to the truth.

    Args:
        logits: (N, K) float32.
        labels: (N,) int64.

    Returns:
        (N,) float32 in [0, 1].
    """
    return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).square().sum(1) / 2


def learning_rate_factor(step: int, total_steps: int, warmup: float, schedule: Schedule = "linear") -> float:
    """Return the share of the peak learning rate at ``step``: a straight line up for ``warmup``, then by ``schedule``.

    ``linear`` falls in a straight line that reaches 0 one step after the last; ``constant`` stays at 1.
    """
    progress = (step + 1) / (total_steps + 1)
    rise = min(1.0, progress / warmup) if warmup > 0 else 1.0
    return rise if schedule == "constant" else min(rise, (1 - progress) / (1 - warmup))


def best_precision(device: torch.device) -> Precision:
    """Return ``bfloat16`` where the processor multiplies it faster than float32, as measured in docs/log.md."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _freeze(network: nn.Module, is_frozen: bool) -> None:
    """Let only the classifier head learn, and batch norm keep its statistics; not frozen, everything learns."""
    network.requires_grad_(not is_frozen).train(not is_frozen)
    if is_frozen:
        classifier_head(network).requires_grad_(True)
