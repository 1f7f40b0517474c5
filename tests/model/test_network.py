"""The architectures, and the guide's own arithmetic on a real convolution."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from torchlight.model import network
from torchlight.model.checkpoint import Header, save_checkpoint
from torchlight.model.errors import NetworkError, UnknownArchitecture, WeightsDamaged
from torchlight.model.network import (
    NetworkConfig,
    architecture_names,
    build_network,
    count_multiply_adds,
    count_parameters,
    default_image_size,
)

Publish = Callable[..., "Published"]
OURS = ("torchlight", "guide", "lenet5")
EXAMPLES = (*OURS, "resnet18", "mobilenet_v3_small", "googlenet")

CURVE_FILTER = [
    [0, 0, 0, 0, 0, 30, 0],
    [0, 0, 0, 0, 30, 0, 0],
    [0, 0, 0, 30, 0, 0, 0],
    [0, 0, 0, 30, 0, 0, 0],
    [0, 0, 0, 30, 0, 0, 0],
    [0, 0, 0, 30, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0],
]
THE_MOUSES_BACK = [
    [0, 0, 0, 0, 0, 0, 30],
    [0, 0, 0, 0, 50, 50, 50],
    [0, 0, 0, 20, 50, 0, 0],
    [0, 0, 0, 50, 50, 0, 0],
    [0, 0, 0, 50, 50, 0, 0],
    [0, 0, 0, 50, 50, 0, 0],
    [0, 0, 0, 50, 50, 0, 0],
]
THE_MOUSES_EAR = [
    [0, 0, 0, 0, 0, 0, 0],
    [0, 40, 0, 0, 0, 0, 0],
    [40, 0, 40, 0, 0, 0, 0],
    [40, 20, 0, 0, 0, 0, 0],
    [0, 50, 0, 0, 0, 0, 0],
    [0, 0, 50, 0, 0, 0, 0],
    [25, 25, 0, 50, 0, 0, 0],
]


class Published(NamedTuple):
    """Weights on a web server: where they are, the file there, and where it belongs once it is fetched."""

    url: str
    file: Path
    fetched: Path


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve the files of a folder over HTTP on this machine while the context lasts; yields the address."""
    with HTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def like_first_layer(filters: int) -> nn.Conv2d:
    """Return a convolution with the default network's first layer's geometry, and that many filters."""
    first = build_network(NetworkConfig("torchlight", 10)).conv1
    return nn.Conv2d(first.in_channels, filters, first.kernel_size, first.stride, first.padding)


def test_first_filter_is_75_products_at_784_positions() -> None:
    layer = like_first_layer(1)
    activation_map = layer(torch.zeros(1, 3, 32, 32))
    assert layer.weight[0].numel() == 5 * 5 * 3 == 75
    assert activation_map.numel() == 28 * 28 == 784


def test_two_first_filters_give_a_volume_of_28x28x2() -> None:
    assert like_first_layer(2)(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 28, 28)


def test_curve_detector_gives_6600_on_the_curve_and_0_off_it() -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[0, 0, 20:27, 3:10] = torch.tensor(THE_MOUSES_BACK)
    image[0, 0, 2:9, 18:25] = torch.tensor(THE_MOUSES_EAR)
    detector = nn.Conv2d(1, 1, kernel_size=7, bias=False)
    detector.weight.data[0, 0] = torch.tensor(CURVE_FILTER)

    activation_map = detector(image)[0, 0]

    assert activation_map.shape == (26, 26)
    assert activation_map[20, 3] == (50 * 30) + (50 * 30) + (50 * 30) + (20 * 30) + (50 * 30) == 6600
    assert activation_map[2, 18] == 0
    assert not activation_map[9:14].any()  # between the ear and the back there is nothing


@pytest.mark.parametrize("architecture", EXAMPLES)
def test_every_architecture_answers_at_its_default_size(architecture: str, noise_images: Callable[..., Tensor]) -> None:
    size = default_image_size(architecture)
    built = build_network(NetworkConfig(architecture, 7)).eval()
    with torch.inference_mode():
        logits = built(noise_images(2, size).float() / 255)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("architecture", "size"), [*((name, 32) for name in OURS), ("resnet18", 224)])
def test_default_image_size_is_what_the_network_was_designed_for(architecture: str, size: int) -> None:
    assert default_image_size(architecture) == size


def test_architectures_are_ours_then_torchvisions() -> None:
    names = architecture_names()
    assert tuple(names[:3]) == OURS
    assert set(EXAMPLES) <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "ask",
    [
        lambda name: build_network(NetworkConfig(name, 3)),
        default_image_size,
        lambda name: network.load_pretrained(nn.Identity(), name),
    ],
    ids=["build", "default size", "pretrained"],
)
@pytest.mark.parametrize("name", ["resnet19", "", "fcn_resnet50", "raft_small"])
def test_unknown_architecture_names_the_ones_there_are(name: str, ask: Callable[[str], object]) -> None:
    with pytest.raises(UnknownArchitecture) as caught:
        ask(name)
    assert f"{name!r} is unknown; take torchlight, guide, lenet5, efficientnet_lite0" in str(caught.value)
    assert "resnet18" in str(caught.value)


@pytest.mark.parametrize("architecture", OURS)
def test_layers_of_our_networks_are_one_chain_of_named_steps(architecture: str) -> None:
    built = build_network(NetworkConfig(architecture, 3))
    assert isinstance(built, nn.Sequential)
    assert not any(list(step.children()) for step in built)
    assert next(iter(dict(built.named_children()))) == "conv1"


def test_guide_is_the_guides_chain() -> None:
    kinds = [type(step).__name__ for step in build_network(NetworkConfig("guide", 10))]
    assert kinds == [
        "Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (
            "guide",
            (28 * 28) * 32 * (5 * 5 * 3) + (24 * 24) * 32 * (5 * 5 * 32) + (8 * 8) * 64 * (5 * 5 * 32) + 1024 * 10,
        ),
        (
            "lenet5",
            (28 * 28) * 6 * (5 * 5 * 3) + (10 * 10) * 16 * (5 * 5 * 6) + 120 * (5 * 5 * 16) + 120 * 84 + 84 * 10,
        ),
    ],
    ids=["guide", "lenet5"],
)
def test_multiply_adds_are_those_counted_by_hand(architecture: str, expected: int) -> None:
    assert count_multiply_adds(build_network(NetworkConfig(architecture, 10)), 32) == expected


def test_multiply_adds_of_grouped_convolutions_count_one_group() -> None:
    layer = nn.Conv2d(6, 6, kernel_size=3, groups=6)
    assert count_multiply_adds(nn.Sequential(nn.Conv2d(3, 6, 1), layer), 5) == 25 * 6 * 3 + 9 * 6 * 9


def test_multiply_adds_of_resnet18_are_the_published_ones() -> None:
    built = build_network(NetworkConfig("resnet18", 1000))
    assert count_multiply_adds(built, 224) == pytest.approx(1.814e9, rel=1e-3)  # torchvision's documentation


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_counting_changes_nothing_of_the_network(training: bool) -> None:
    built = build_network(NetworkConfig("torchlight", 3)).train(training)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    count_multiply_adds(built, 32)
    assert all(module.training == training for module in built.modules())
    assert all(torch.equal(before[name], value) for name, value in built.state_dict().items())
    assert not any(module._forward_hooks for module in built.modules())


def test_counting_restores_the_network_when_the_size_is_impossible() -> None:
    built = build_network(NetworkConfig("guide", 3)).train()
    with pytest.raises(RuntimeError):
        count_multiply_adds(built, 4)
    assert built.training
    assert not any(module._forward_hooks for module in built.modules())


def test_parameters_of_lenet5_are_those_counted_by_hand() -> None:
    weights = 6 * 75 + 16 * 150 + 120 * 400 + 84 * 120 + 10 * 84
    biases = 6 + 16 + 120 + 84 + 10
    assert count_parameters(build_network(NetworkConfig("lenet5", 10))) == weights + biases


def test_default_network_is_small(tmp_path: Path, make_header: Callable[..., Header]) -> None:
    built = build_network(NetworkConfig("torchlight", 10))
    path = tmp_path / "default.safetensors"
    save_checkpoint(path, built, make_header("torchlight", class_names=tuple("abcdefghij")))
    assert count_multiply_adds(built, 32) <= 0.15e9
    assert path.stat().st_size <= 8_000_000


def test_same_seed_gives_the_same_initial_weights(make_network: Callable[..., nn.Module]) -> None:
    first, same, other = (make_network("torchlight", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publish]:
    """Return a function that puts weights on a web server of this machine, as torchvision's are on its own."""
    site, hub = tmp_path / "site", tmp_path / "hub"
    site.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve_folder(site) as address:

        def publish(weights: dict[str, Tensor], digits: str | None = None) -> Published:
            """``digits``: of the hash in the file's name, if they shall be wrong."""
            torch.save(weights, site / "new")
            digest = digits or hashlib.sha256((site / "new").read_bytes()).hexdigest()[:8]
            name = f"network-{digest}.pth"
            (site / "new").rename(site / name)
            weights_enum = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"{address}/{name}"))
            monkeypatch.setattr(models, "get_model_weights", lambda name: weights_enum)
            return Published(f"{address}/{name}", site / name, hub / "checkpoints" / name)

        yield publish


@pytest.mark.parametrize(("architecture", "head"), [("resnet18", "fc."), ("mobilenet_v3_small", "classifier.3.")])
def test_pretrained_weights_fill_all_but_the_head(architecture: str, head: str, publish: Publish) -> None:
    weights = build_network(NetworkConfig(architecture, 1000)).state_dict()
    publish(weights)
    built = build_network(NetworkConfig(architecture, 5))
    own_head = {name: value.clone() for name, value in built.state_dict().items() if name.startswith(head)}

    network.load_pretrained(built, architecture)

    expected = {name: own_head.get(name, value) for name, value in weights.items()}
    assert own_head
    assert all(torch.equal(value, expected[name]) for name, value in built.state_dict().items())


def test_pretrained_weights_for_the_published_classes_fill_the_head_too(publish: Publish) -> None:
    weights = build_network(NetworkConfig("resnet18", 1000)).state_dict()
    publish(weights)
    built = build_network(NetworkConfig("resnet18", 1000))
    network.load_pretrained(built, "resnet18")
    assert all(torch.equal(value, weights[name]) for name, value in built.state_dict().items())


def test_pretrained_weights_are_fetched_once(publish: Publish) -> None:
    published = publish({"fc.bias": torch.zeros(3)})
    network.read_pretrained("resnet18")
    published.file.unlink()
    assert network.read_pretrained("resnet18").keys() == {"fc.bias"}


def test_pretrained_weights_that_cannot_be_fetched_say_from_where_and_where_to_put_them(publish: Publish) -> None:
    published = publish({})
    published.file.unlink()
    with pytest.raises(NetworkError) as caught:
        network.read_pretrained("resnet18")
    assert str(caught.value) == (
        f"weights of resnet18 cannot be fetched from {published.url} (HTTP Error 404: File not found); "
        f"save them as {published.fetched} yourself, or train without --pretrained"
    )
    caught.value.__cause__.close()  # the server's answer


def test_fetched_weights_with_another_hash_are_refused_and_not_kept(publish: Publish) -> None:
    published = publish({}, digits="00000000")
    with pytest.raises(NetworkError, match=r"cannot be fetched from .*invalid hash value .*00000000"):
        network.read_pretrained("resnet18")
    assert list(published.fetched.parent.iterdir()) == []


def test_a_damaged_file_of_weights_is_named_and_refused(publish: Publish) -> None:
    published = publish({})
    network.read_pretrained("resnet18")
    published.fetched.write_bytes(b"half of them")
    with pytest.raises(WeightsDamaged) as caught:
        network.read_pretrained("resnet18")
    assert str(caught.value).startswith(f"weights of resnet18: {published.fetched} has the SHA-256 ")
    assert str(caught.value).endswith(f"remove it, so that {published.url} is fetched again")


@pytest.mark.parametrize("architecture", OURS)
def test_our_networks_have_no_published_weights_and_say_so(architecture: str) -> None:
    with pytest.raises(NetworkError, match=rf"{architecture}.* no .*weights"):
        network.load_pretrained(build_network(NetworkConfig(architecture, 3)), architecture)
