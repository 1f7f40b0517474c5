"""Several processes that train one network together, as ``torchrun`` starts them.

Each process holds all images and the same weights. It computes its part of every batch; gradients are averaged, batch
norm sees the whole batch, and so a run of several processes makes the steps that one process would make.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchlight.model.errors import DeviceUnavailable, TorchlightError
from torchlight.training.optimisation.batch_norm import share_statistics

PATIENCE = timedelta(days=7)  # no limit of our own: torchrun ends all processes when one has died


class ProcessLost(TorchlightError):
    """Another process of the run has ended before its time."""


class Processes:
    """The processes that share a run: here just this one. :class:`TorchrunProcesses` are several."""

    rank = 0
    number = 1

    def own_device(self, device: torch.device) -> torch.device:
        """Return which device of that kind this process computes on."""
        return device

    def share_batch_norm(self, network: nn.Module) -> nn.Module:
        """Return the network with batch norm over the whole batch, equal in all processes."""
        return network

    def average_gradients(self, network: nn.Module) -> nn.Module:
        """Return a module that computes what ``network`` does and averages its gradients over the processes.

        Only parameters that learn now take part; call it again when others do. The weights become those of the first
        process.
        """
        return network

    def own_part(self, number: int) -> slice:
        """Return which of ``number`` items are this process's."""
        return slice(self.rank * number // self.number, (self.rank + 1) * number // self.number)

    def mean(self, figures: Tensor) -> Tensor:
        """Return the mean over the processes."""
        return figures

    def gather(self, part: Tensor) -> Tensor:
        """Return the parts of all processes, (n, ...) each, one after the other."""
        return part

    def is_any(self, claim: bool) -> bool:
        """Return whether one of the processes claims it."""
        return claim

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in the first process, then in the others, and there only if it succeeded."""
        yield

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise an error of ours when the others cannot be reached any more.

        Raises:
            ProcessLost: another process has ended.
        """
        yield


class TorchrunProcesses(Processes):
    """The processes that ``torchrun`` has started, on one machine or several; see :func:`join`.

    ``average_gradients``, ``mean``, ``gather``, ``is_any`` and ``in_turn`` wait for the others: all must call them in
    the same order.
    """

    def __init__(self) -> None:
        self.rank, self.number = dist.get_rank(), dist.get_world_size()

    def own_device(self, device: torch.device) -> torch.device:
        """Return which device of that kind this process computes on: each of a machine has its own GPU.

        Raises:
            DeviceUnavailable: there are fewer GPUs than processes, or the device is neither a CPU nor a CUDA one.
        """
        if device.type == "cpu":
            return device
        if device.type != "cuda":
            raise DeviceUnavailable(f"device {device} cannot be shared by several processes; pass --device cpu")
        index, number = dist.get_node_local_rank(), torch.cuda.device_count()
        if index >= number:
            raise DeviceUnavailable(
                f"process {index + 1} of this machine finds {number} GPUs; "
                f"start it with --nproc-per-node {number}, or pass --device cpu"
            )
        torch.cuda.set_device(index)
        return torch.device("cuda", index)

    def share_batch_norm(self, network: nn.Module) -> nn.Module:
        if next(network.parameters()).device.type == "cuda":
            convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
            return convert(network)
        return share_statistics(network)

    def average_gradients(self, network: nn.Module) -> nn.Module:
        return DistributedDataParallel(network, forward_sync_buffers=False)  # batch norm's are equal everywhere

    def mean(self, figures: Tensor) -> Tensor:
        total = figures.clone()
        dist.all_reduce(total)
        return total / self.number

    def gather(self, part: Tensor) -> Tensor:
        sizes = torch.zeros(self.number, dtype=torch.int64)
        sizes[self.rank] = len(part)
        dist.all_reduce(sizes)
        start = int(sizes[: self.rank].sum())
        whole = part.new_zeros(int(sizes.sum()), *part.shape[1:])
        whole[start : start + len(part)] = part
        dist.all_reduce(whole)
        return whole

    def is_any(self, claim: bool) -> bool:
        claims = torch.tensor(int(claim))
        dist.all_reduce(claims)
        return bool(claims)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        if self.rank > 0:
            self._meet()
        yield
        if self.rank == 0:
            self._meet()

    @contextmanager
    def watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if "gloo" in str(error) or isinstance(error, dist.DistError):  # gloo has no class for its errors
                raise ProcessLost("another process of this run has ended; torchrun tells which and how") from error
            raise

    def _meet(self) -> None:
        dist.all_reduce(torch.zeros(1))  # on the CPU: dist.barrier would take the GPU and not hear a signal


@contextmanager
def join(device: torch.device) -> Iterator[Processes]:
    """Yield the processes that ``torchrun`` started together with this one; without it, this one alone.

    Args:
        device: of a kind that all will compute on.
    """
    if not dist.is_torchelastic_launched():
        yield Processes()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield TorchrunProcesses()
    dist.destroy_process_group()  # not after an error, when it would wait for processes that have ended
