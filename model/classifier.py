"""A network with its labels, ready to answer. Knows nothing of files being uploaded, HTTP or batching."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from torchlight.model.checkpoint import Checkpoint
from torchlight.model.errors import DeviceUnavailable
from torchlight.model.graph import NetworkGraph
from torchlight.model.images import normalise
from torchlight.model.uncertainty.answer_sets import choose_members


@dataclass(frozen=True)
class Prediction:
    """One label with its probability in [0, 1]; ``index`` is its position in the class names."""

    label: str
    index: int
    probability: float


class Classifier:
    """Images -> probabilities -> the k best labels.

    Attributes:
        network: in evaluation mode on ``device``; nothing in this package changes it after construction.
        class_names: label of each output.
        spec: size and normalisation of the network's input.
        digest: identifies the checkpoint in every answer.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        """Move the network of a checkpoint to a device.

        On CUDA, TF32 is turned off for convolutions in the whole process: it keeps 10 bits of each factor, and the
        views are compared with float32.
        """
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False
        self.checkpoint = checkpoint
        self.device = device
        self.network = checkpoint.network.to(device).to(memory_format=torch.channels_last)
        self.class_names = checkpoint.header.class_names
        self.spec = checkpoint.header.image_spec
        self.digest = checkpoint.digest

    @cached_property
    def graph(self) -> NetworkGraph:
        """The network layer by layer, for the views; traced at the first access.

        Do not trace while a network runs in another thread: torch.fx patches ``nn.Module.__call__`` meanwhile.
        """
        return NetworkGraph(self.network, self.spec.size)

    def network_input(self, images: Tensor) -> Tensor:
        """Return the network's input for (N, 3, S, S) uint8 RGB images on any device.

        Returns:
            (N, 3, S, S) float32 normalised, on ``device``, in the memory format of the weights.
        """
        batch = normalise(images.to(self.device, non_blocking=True), self.spec)
        return batch.contiguous(memory_format=torch.channels_last)

    def logits(self, images: Tensor) -> Tensor:
        """Run the network.

        Args:
            images: (N, 3, S, S) uint8 RGB as :func:`model.images.to_tensor` makes them, on any device.

        Returns:
            (N, K) float32 on the CPU.
        """
        with torch.inference_mode():
            output: Tensor = self.network(self.network_input(images))  # (N, K)
            return output.float().cpu()

    def probabilities(self, images: Tensor) -> Tensor:
        """Return softmax of :meth:`logits`: (N, K) float32 on the CPU, each row summing to 1."""
        return self.logits(images).softmax(dim=1)

    def top_k(self, probabilities: Tensor, k: int | None = None) -> list[Prediction]:
        """Return the ``k`` most probable labels of one image, most probable first; all of them without ``k``.

        Args:
            probabilities: (K,) one row of :meth:`probabilities`.
            k: from 1 to K; larger values give all.
        """
        values = probabilities.tolist()
        # sorting is stable: of equal probabilities the first class comes first
        best = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:k]
        return [Prediction(self.class_names[index], index, values[index]) for index in best]

    def answer_set(self, probabilities: Tensor, coverage: float) -> list[str] | None:
        """Return the labels that hold the true one in a share ``coverage`` of images, most probable first.

        Args:
            probabilities: (K,) one row of :meth:`probabilities`.
            coverage: from 0.5 to below 1; more than the held-out images can show gives all labels.

        Returns:
            At least one label; None if the checkpoint has no scores of held-out images.
        """
        sets = self.checkpoint.header.answer_sets
        if sets is None:
            return None
        return [self.class_names[k] for k in choose_members(probabilities.tolist(), sets.threshold(coverage))]


def choose_device(name: str) -> torch.device:
    """Return the torch device: ``auto`` takes CUDA, then MPS, then the CPU; any other name is taken as it is.

    Raises:
        DeviceUnavailable: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch raises, by the kind of device
        reason = str(error).splitlines()[0].rstrip(".")
        raise DeviceUnavailable(f"device {name} cannot be used ({reason}); auto takes one that can") from error
    return device
