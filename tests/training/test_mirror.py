"""Mirror twins: an image and its mirror image get the same answer, before, while and after the network learns."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.images import ImageSpec
from model.network import NetworkConfig, build
from training import mirror
from training.config import TrainingConfig
from training.data import LabelledImages
from training.initialisation import whiten_first_layer
from training.loop import Training

SPEC = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def drawn(number: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(number) % 3
    return LabelledImages(images, labels, tuple(map(str, range(number))))


def tied() -> nn.Module:
    torch.manual_seed(0)
    network = build(NetworkConfig("torchlight", 3))
    whiten_first_layer(network, drawn(50).images, SPEC)
    mirror.tie(network)
    return network.eval()


def difference(network: nn.Module, images: Tensor) -> float:
    with torch.inference_mode():
        return (network(images) - network(images.flip(3))).abs().max().item()


def test_an_image_and_its_mirror_image_get_the_same_answer() -> None:
    network, images = tied(), torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert network(images).std(dim=0).max() > 1e-3  # else equality would say nothing
    assert difference(network, images) < 1e-5


def test_without_twins_it_does_not() -> None:
    torch.manual_seed(0)
    network, images = build(NetworkConfig("torchlight", 3)).eval(), torch.randn(4, 3, 32, 32)
    assert difference(network, images) > 1e-3


def test_the_maps_of_a_mirrored_image_are_the_mirrored_maps_of_the_twins() -> None:
    network, images = tied(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert isinstance(network, nn.Sequential)
    up_to_pool = network[: list(dict(network.named_children())).index("global_pool")]
    with torch.inference_mode():
        maps, of_mirrored = up_to_pool(images), up_to_pool(images.flip(3))
    torch.testing.assert_close(of_mirrored, maps.flip(3).roll(maps.shape[1] // 2, 1), rtol=0, atol=1e-4)


def test_gradients_are_those_of_the_images_and_their_mirror_images_together() -> None:
    network, examples = tied().train(), drawn(12)
    images = examples.images.float() / 128 - 1

    def gradients(batches: list[Tensor]) -> dict[str, Tensor]:
        network.zero_grad()
        for batch in batches:
            (F.cross_entropy(network(batch), examples.labels) / len(batches)).backward()
        return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}  # type: ignore[union-attr]

    expected = gradients([images, images.flip(3)])
    gradients([images])
    mirror.symmetrise_gradients(network)
    for name, parameter in network.named_parameters():
        largest = expected[name].abs().max()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=float(1e-3 * largest + 1e-7))


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_twins_stay_twins_while_they_learn(optimizer: str) -> None:
    network, examples = tied(), drawn(32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = TrainingConfig(epochs=2, batch_size=8, optimizer=optimizer, mirror_twins=True)  # type: ignore[arg-type]
    for _ in Training(network, examples, SPEC, config).epochs(examples):
        assert difference(network, torch.randn(4, 3, 32, 32)) < 1e-4
    changed = [name for name, value in network.state_dict().items() if not value.equal(before[name])]
    assert {"conv1.weight", "conv6.weight", "bn3.running_mean", "fc.weight"} <= set(changed)


def test_first_filters_are_patterns_with_their_negatives_and_mirror_images() -> None:
    network = build(NetworkConfig("torchlight", 3))
    whiten_first_layer(network, drawn(200).images, SPEC)
    filters: Tensor = network.get_parameter("conv1.weight").detach()
    patterns, negatives, mirrored, mirrored_negatives = filters.split(16)
    assert torch.equal(negatives, -patterns)
    assert torch.equal(mirrored, patterns.flip(3))
    assert torch.equal(mirrored_negatives, -patterns.flip(3))
    assert (
        torch.linalg.matrix_rank(filters.flatten(1)).item() >= 24
    )  # of 32: patterns of one kind that are left over are their own twins
