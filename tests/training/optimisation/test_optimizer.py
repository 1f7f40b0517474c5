"""Weight updates compared with the same arithmetic written out."""

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.network import NetworkConfig, build_network
from torchlight.training.config import TrainingConfig
from torchlight.training.optimisation.optimizer import Muon, build_optimizer, orthogonalise


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 75), (75, 64), (128, 576), (16, 2304), (3, 3)], ids=str)
def test_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonalise(matrix))
    large = before > 0.1 * before[0]
    assert after[large].min() > 0.6
    assert after.max() < 1.3


def test_orthogonalised_matrix_keeps_the_singular_vectors() -> None:
    matrix = random(5, 8)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    middle = u.T @ orthogonalise(matrix) @ v.T
    torch.testing.assert_close(middle, middle.diag().diag(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6], ids=["tiny", "one", "huge"])
def test_orthogonalising_does_not_depend_on_the_size_of_the_matrix(factor: float) -> None:
    matrix = random(8, 12)
    torch.testing.assert_close(orthogonalise(matrix * factor), orthogonalise(matrix), atol=0.05, rtol=0.05)


def test_muon_step_is_the_same_size_whatever_the_gradient() -> None:
    steps = []
    for factor in (1e-3, 1e3):
        bank = nn.Parameter(random(16, 3, 3, 3))
        bank.data *= 4 / bank.data.norm()  # already of the norm that the step gives it
        before = bank.detach().clone()
        bank.grad = random(16, 3, 3, 3, seed=1) * factor
        Muon([{"params": [bank], "lr": 0.1, "orthogonal": True}]).step()
        steps.append(bank.detach() - before)
    torch.testing.assert_close(steps[0], steps[1], atol=1e-3, rtol=0.01)
    assert steps[0].norm() == pytest.approx(0.1 * 16**0.5, rel=0.3)


def test_muon_scales_the_filters_before_each_step() -> None:
    bank = nn.Parameter(50 * random(16, 3, 3, 3))
    bank.grad = random(16, 3, 3, 3, seed=1)
    Muon([{"params": [bank], "lr": 1e-6, "orthogonal": True}]).step()
    assert bank.norm().item() == pytest.approx(4, rel=1e-4)


def test_other_groups_of_muon_are_nesterov_gradient_descent() -> None:
    ours, theirs = nn.Parameter(random(5)), nn.Parameter(random(5))
    optimizers = [
        Muon([{"params": [ours], "lr": 0.1, "momentum": 0.9}]),
        torch.optim.SGD([theirs], lr=0.1, momentum=0.9, nesterov=True),
    ]
    for step in range(5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = random(5, seed=step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("architecture", ["torchlight", "guide", "lenet5"])
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_every_parameter_is_in_one_group(architecture: str, optimizer: str) -> None:
    network = build_network(NetworkConfig(architecture, 3))
    groups = build_optimizer(network, TrainingConfig(1, 512, optimizer)).param_groups
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in network.parameters())


def test_muon_takes_the_filters_and_leaves_the_rest_to_gradient_descent() -> None:
    network = build_network(NetworkConfig("torchlight", 3))
    config = TrainingConfig(1, 256, "muon", learning_rate=0.1, muon_learning_rate=0.07)
    filters, others = build_optimizer(network, config).param_groups
    assert {parameter.ndim for parameter in filters["params"]} == {4}
    assert {parameter.ndim for parameter in others["params"]} == {1, 2}
    assert (filters["orthogonal"], others["orthogonal"]) == (True, False)
    assert (filters["lr"], others["lr"]) == (0.07, pytest.approx(0.05))  # half a batch of 512, half the rate


def test_gradient_descent_decays_filters_and_matrices_but_not_vectors() -> None:
    network = build_network(NetworkConfig("torchlight", 3))
    groups = build_optimizer(network, TrainingConfig(1, 1024, weight_decay=0.25)).param_groups
    decays = {parameter.ndim: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {4: 0.25, 2: 0.25, 1: 0}
    assert [group["lr"] for group in groups] == pytest.approx([0.2, 0.2])
