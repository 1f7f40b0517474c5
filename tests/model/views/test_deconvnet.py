"""A unit's activation sent back to the pixels: by transposes that are checked, and to nowhere it did not look."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution, NeuronDeconvolution
from torch import Tensor, nn

from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.classifier import Classifier
from torchlight.model.errors import ChannelOutOfRange, PositionOutOfRange, UnknownLayer, ViewNotApplicable
from torchlight.model.images import normalise
from torchlight.model.views.deconvnet import reconstruct

Serve = Callable[..., Classifier]


@pytest.fixture(scope="module")
def serve(make_header: Callable[..., Header]) -> Serve:
    """Return a function that makes a classifier of any network on images of S x S."""

    def make(network: nn.Module, size: int = 12) -> Classifier:
        checkpoint = Checkpoint(make_header(size=size), network.eval(), "sha256:test", Path("unsaved"))
        return Classifier(checkpoint, torch.device("cpu"))

    return make


@pytest.fixture(scope="module")
def guide(serve: Serve, make_network: Callable[..., nn.Module]) -> Classifier:
    return serve(make_network("guide"), 32)


@pytest.fixture(scope="module")
def torchlight(serve: Serve, make_network: Callable[..., nn.Module]) -> Classifier:
    return serve(make_network("torchlight"), 32)


@pytest.fixture(scope="module")
def image(noise_images: Callable[..., Tensor]) -> Tensor:
    return noise_images(1)[0]


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def red() -> nn.Module:
    """Return a layer that gives the red of an image."""
    layer = nn.Conv2d(3, 1, 1, bias=False)
    layer.weight.data = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    return layer


def assert_close_to_the_largest(actual: Tensor, expected: Tensor) -> None:
    """Compare within 1e-5 of the largest value, which must not be zero."""
    assert expected.any()
    torch.testing.assert_close(actual, expected.detach(), rtol=0, atol=1e-5 * expected.abs().max().item())


class Branches(nn.Module):
    """Linear all through: a sum of two branches, one of them counted twice, then a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.right = nn.Conv2d(3, 4, 5, padding=2, bias=False)
        self.last = nn.Conv2d(8, 2, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        return self.last(torch.cat([left + left, left + right], 1))


# Linear and without constants, so that output = W image for a matrix W.
LINEAR_CHAINS: dict[str, Callable[[], nn.Module]] = {
    "stride and padding": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)),
    "a layer of zeros": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(3, 6, 3, stride=2, bias=False)),
    "dilation": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, dilation=2, bias=False)),
    "groups": lambda: nn.Sequential(nn.Conv2d(3, 6, (3, 2), groups=3, bias=False)),
    "average pooling": lambda: nn.Sequential(nn.Conv2d(3, 6, 2, bias=False), nn.AvgPool2d(3, 2, padding=1)),
    "adaptive pooling": lambda: nn.Sequential(nn.Conv2d(3, 6, 2, bias=False), nn.AdaptiveAvgPool2d((4, 3))),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 6, 2, bias=False), nn.BatchNorm2d(6)),  # of mean and shift zero
    "fully connected": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(432, 2, bias=False)),
    "branches": Branches,
}


@pytest.mark.parametrize("name", LINEAR_CHAINS)
def test_way_down_is_the_transpose_of_the_way_up(name: str, serve: Serve, noise_images: Callable[..., Tensor]) -> None:
    classifier = serve(seeded(LINEAR_CHAINS[name]))
    first, second = noise_images(2, 12)
    with torch.inference_mode():
        (up,) = classifier.network(normalise(second[None], classifier.spec))
    pixels = normalise(second[None], classifier.spec)[0].double()
    for channel in range(2):
        found = reconstruct(classifier, first, classifier.graph.output, channel)
        place = (channel, *found.position)[: up.ndim]
        assert found.value != 0
        products = found.pixels.double() * pixels
        bound = 1e-5 * products.abs().sum().item()
        assert products.sum().item() == pytest.approx(found.value * up[place].item(), rel=0, abs=bound)


def test_rectified_signal_goes_through_the_networks_own_filters_turned_round(guide: Classifier, image: Tensor) -> None:
    network = guide.network
    with torch.inference_mode():
        first = network.conv1(normalise(image[None], guide.spec))
        second = network.conv2(first.relu()).relu()
        place = (0, 7, *divmod(int(second[0, 7].argmax()), 24))
        signal = torch.zeros_like(second)
        signal[place] = second[place]
        signal = F.conv_transpose2d(signal, network.conv2.weight).relu()  # whatever the sign on the way up was
        (expected,) = F.conv_transpose2d(signal, network.conv1.weight)
    found = reconstruct(guide, image, "relu2", 7)
    assert found.position == place[2:]
    assert found.value == pytest.approx(second[place].item())
    assert found.pixels.shape == (3, 32, 32)
    assert found.pixels.min() < 0 < found.pixels.max()  # no rectification at the pixels
    assert_close_to_the_largest(found.pixels, expected)


def test_signal_returns_to_the_recorded_maximum(serve: Serve) -> None:
    classifier = serve(nn.Sequential(red(), nn.MaxPool2d(2)), 4)
    image = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    found = reconstruct(classifier, image, "1", 0, (1, 0))
    assert found.pixels.nonzero().tolist() == [[0, 3, 1]]
    assert found.pixels[0, 3, 1] == found.value == normalise(image[None], classifier.spec)[0, 0, 3, 1]


def test_signals_that_return_to_one_maximum_add_up(serve: Serve) -> None:
    classifier = serve(nn.Sequential(red(), nn.MaxPool2d(3, stride=1), nn.AvgPool2d(2)), 4)
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    image[0, 1, 1] = 255  # the maximum of all four windows, each of which gets a quarter of the signal
    found = reconstruct(classifier, image, "2", 0)
    assert found.pixels.nonzero().tolist() == [[0, 1, 1]]
    assert found.pixels[0, 1, 1] == pytest.approx(found.value)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
@pytest.mark.parametrize("architecture", ["guide", "torchlight"])
def test_reconstruction_is_captums(architecture: str, request: pytest.FixtureRequest, image: Tensor) -> None:
    classifier = request.getfixturevalue(architecture)
    network = copy.deepcopy(classifier.network)
    pixels = normalise(image[None], classifier.spec).requires_grad_()
    for layer, channel in [("relu1", 2), ("relu2", 3), ("relu4", 5), ("relu4", 9), ("pool1", 1)]:
        found = reconstruct(classifier, image, layer, channel)
        captum = NeuronDeconvolution(network, network.get_submodule(layer))
        (expected,) = found.value * captum.attribute(pixels, (channel, *found.position))
        assert_close_to_the_largest(found.pixels, expected)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
@pytest.mark.parametrize("architecture", ["guide", "torchlight"])
def test_reconstruction_of_a_class_is_captums(architecture: str, request: pytest.FixtureRequest, image: Tensor) -> None:
    classifier = request.getfixturevalue(architecture)
    pixels = normalise(image[None], classifier.spec).requires_grad_()
    target = int(classifier.logits(image[None]).argmax())
    found = reconstruct(classifier, image, "fc", target)
    (expected,) = found.value * Deconvolution(copy.deepcopy(classifier.network)).attribute(pixels, target)
    assert found.value > 0
    assert found.position == (0, 0)
    assert_close_to_the_largest(found.pixels, expected)


@pytest.mark.parametrize(
    ("architecture", "layer", "position", "rows", "columns"),
    [
        ("guide", "relu1", (0, 27), slice(0, 5), slice(27, 32)),
        ("guide", "relu2", (10, 3), slice(10, 19), slice(3, 12)),
        ("guide", "relu4", (7, 1), slice(14, 32), slice(2, 20)),
        ("torchlight", "bn1", (4, 9), slice(4, 9), slice(9, 14)),
        ("torchlight", "relu3", (6, 0), slice(8, 22), slice(0, 10)),
        ("torchlight", "relu3", (13, 7), slice(22, 32), slice(10, 24)),
    ],
)
def test_pixels_outside_the_receptive_field_are_exactly_zero(
    architecture: str,
    layer: str,
    position: tuple[int, int],
    rows: slice,
    columns: slice,
    request: pytest.FixtureRequest,
    image: Tensor,
) -> None:
    classifier = request.getfixturevalue(architecture)
    outputs = classifier.graph.run(normalise(image[None], classifier.spec), [layer])[layer][0]
    firing = int(outputs[:, *position].argmax())
    found = reconstruct(classifier, image, layer, firing, position)
    inside = found.pixels[:, rows, columns].clone()
    found.pixels[:, rows, columns] = 0
    assert inside.any()
    assert not found.pixels.any()


def test_strongest_activation_of_the_map_is_taken_unless_one_is_named(guide: Classifier, image: Tensor) -> None:
    maps = guide.graph.run(normalise(image[None], guide.spec), ["conv3"])["conv3"][0]
    strongest = reconstruct(guide, image, "conv3", 11)
    assert strongest.value == pytest.approx(maps[11].max().item())
    assert maps[11][strongest.position].item() == pytest.approx(strongest.value)
    named = reconstruct(guide, image, "conv3", 11, (6, 2))
    assert (named.position, named.value) == ((6, 2), pytest.approx(maps[11, 6, 2].item()))


def test_unit_that_did_not_fire_gives_nothing(guide: Classifier, image: Tensor) -> None:
    maps = guide.graph.run(normalise(image[None], guide.spec), ["relu1"])["relu1"][0]
    y, x = (maps[4] == 0).nonzero()[0].tolist()
    found = reconstruct(guide, image, "relu1", 4, (y, x))
    assert found.value == 0
    assert not found.pixels.any()


def test_residual_and_dense_blocks_send_the_signal_to_all_branches(serve: Serve, image: Tensor) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            stem = self.relu(self.stem(x))
            total = self.relu(self.conv(stem)) + stem
            return F.relu(torch.cat([total, stem], 1))

    classifier = serve(seeded(Block), 32)
    block = classifier.network
    found = reconstruct(classifier, image, classifier.graph.output, 1)
    signal = torch.zeros(1, 4, 32, 32)
    signal[0, 1, *found.position] = found.value
    signal = (F.conv_transpose2d(signal, block.conv.weight, padding=1) + signal).relu()
    (expected,) = F.conv_transpose2d(signal, block.stem.weight)
    assert found.value > 0
    assert_close_to_the_largest(found.pixels, expected)


@pytest.mark.parametrize(
    "bend",
    [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Hardswish(), nn.LeakyReLU(), nn.ReLU6()],
    ids=lambda one: type(one).__name__,
)
def test_networks_without_relu_are_refused_with_the_reason(bend: nn.Module, serve: Serve, image: Tensor) -> None:
    classifier = serve(nn.Sequential(nn.Conv2d(3, 4, 3), bend, nn.Conv2d(4, 4, 3), nn.ReLU()), 32)
    with pytest.raises(ViewNotApplicable, match=f"layer '1', of type {type(bend).__name__}, has no way down"):
        reconstruct(classifier, image, "3", 0)
    assert reconstruct(classifier, image, "0", 0).pixels.any()  # before the bend there is one


def test_maps_scaled_by_other_maps_have_no_way_down(serve: Serve, image: Tensor) -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            return maps * maps.mean((2, 3), keepdim=True)

    with pytest.raises(ViewNotApplicable, match="layer 'mul', of type mul, has no way down"):
        reconstruct(serve(Gate(), 32), image, "mul", 0)


@pytest.mark.parametrize(
    ("layer", "channel", "position", "error", "words"),
    [
        ("conv9", 0, None, UnknownLayer, "layer 'conv9' does not exist"),
        ("conv1", 32, None, ChannelOutOfRange, "layer 'conv1' has channels 0 to 31"),
        ("conv1", -1, None, ChannelOutOfRange, "channel -1 does not exist"),
        ("fc", 3, None, ChannelOutOfRange, "layer 'fc' has channels 0 to 2"),
        ("conv1", 0, (28, 0), PositionOutOfRange, "y=28, x=0 does not exist: layer 'conv1' has 28x28 positions"),
        ("conv1", 0, (0, -1), PositionOutOfRange, "y 0 to 27, x 0 to 27"),
        ("fc", 0, (0, 1), PositionOutOfRange, "layer 'fc' has 1x1 positions"),
    ],
)
def test_units_that_do_not_exist_say_what_there_is(
    layer: str,
    channel: int,
    position: tuple[int, int] | None,
    error: type[Exception],
    words: str,
    guide: Classifier,
    image: Tensor,
) -> None:
    with pytest.raises(error, match=words):
        reconstruct(guide, image, layer, channel, position)


def test_layer_of_neither_maps_nor_numbers_is_refused(serve: Serve, image: Tensor) -> None:
    classifier = serve(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2)), 32)
    with pytest.raises(ViewNotApplicable, match="layer '1' gives neither maps nor a vector"):
        reconstruct(classifier, image, "1", 0)


def test_looking_down_gives_no_parameter_a_gradient(guide: Classifier, image: Tensor) -> None:
    before = {name: value.clone() for name, value in guide.network.state_dict().items()}
    reconstruct(guide, image, "relu4", 0)
    assert all(torch.equal(before[name], value) for name, value in guide.network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in guide.network.parameters())
