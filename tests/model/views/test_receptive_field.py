"""Receptive fields: the formula against where the gradient really reaches, and against published numbers."""

from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.errors import PositionOutOfRange, UnknownLayer, ViewNotApplicable
from torchlight.model.graph import NetworkGraph
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.views.receptive_field import (
    Box,
    ReceptiveField,
    SeenPixels,
    Window,
    find_seen_pixels,
    receptive_fields,
    window,
)

STACKS = {  # (kernel_size, stride, dilation) of each convolution; no padding
    "one dilated": [(3, 1, 2)],
    "dilated after a stride": [(3, 2, 1), (3, 1, 4)],
    "two strides, two dilations": [(7, 2, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4)],
    "even kernels": [(2, 1, 1), (4, 2, 1), (2, 2, 3)],
}


class Residual(nn.Module):
    """A block whose shortcut is strided too, as in ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 5, padding=2, dilation=1)
        self.shortcut = nn.Conv2d(3, 4, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv2(self.relu(self.conv1(x)))
        branch += self.shortcut(x)
        return self.relu(branch)


class Dense(nn.Module):
    """Each layer reads all before it, as in DenseNet; a max pool that rounds up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 5, padding=2)
        self.pool0 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv1 = nn.Conv2d(4, 2, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 2, 3, padding="same", dilation=2)
        self.transition = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.pool0(self.conv0(x))
        second = torch.cat([first, self.conv1(first)], 1)
        third = torch.cat([second, self.conv2(second)], 1)
        return self.transition(third)


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Conv2d(4, 4, 1)
        self.hardsigmoid = nn.Hardsigmoid()
        self.after = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.after(self.hardsigmoid(self.excite(self.squeeze(x))) * x)


class ChannelsLast(nn.Module):
    """A block of ConvNeXt: norm and fully connected layers over the channels of each place, scaled, and added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.conv = nn.Conv2d(4, 4, 5, padding=2, groups=4)
        self.norm, self.wide, self.gelu, self.narrow = nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(1, 1, 1))
        self.after = nn.Conv2d(4, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branch = self.narrow(self.gelu(self.wide(self.norm(self.conv(x).permute(0, 2, 3, 1)))))
        return self.after(self.scale * branch.permute((0, 3, 1, 2)) + x)


class Disagreeing(nn.Module):
    """Joins maps whose positions are 1 and 2 pixels apart; then rearranges the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.every = nn.Conv2d(3, 4, 9)
        self.second = nn.Conv2d(3, 4, 1, stride=2)
        self.fc = nn.Linear(4 * 8 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.every(x) + self.second(x)
        return self.fc(joined.transpose(2, 3).flatten(1))


def stack(layers: list[tuple[int, int, int]]) -> nn.Module:
    chain = [nn.Conv2d(3, 3, size, stride=stride, dilation=dilation) for size, stride, dilation in layers]
    return nn.Sequential(*chain)


def padded() -> nn.Module:
    return nn.Sequential(
        *(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, stride=2)),
        *(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(4, 4, 5, stride=2), nn.ReLU6()),
    )


def resnet18_beginning() -> nn.Module:
    network = build_network(NetworkConfig("resnet18", 2))
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2")
    return nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names))


NETWORKS = {
    **{name: (lambda layers=layers: stack(layers), 80) for name, layers in STACKS.items()},
    **{
        name: (lambda name=name: build_network(NetworkConfig(name, 2)), 32)
        for name in ("torchlight", "guide", "lenet5")
    },
    "resnet18's first stages": (resnet18_beginning, 129),
    "mobilenet_v3_small": (lambda: build_network(NetworkConfig("mobilenet_v3_small", 2)), 64),
    "residual": (Residual, 30),
    "dense": (Dense, 41),
    "layers of zeros, more of them after than before": (padded, 32),
    "efficientnet_lite0_multilevel": (lambda: build_network(NetworkConfig("efficientnet_lite0_multilevel", 2)), 224),
    "channels last": (ChannelsLast, 40),
    "squeeze and excitation": (SqueezeExcitation, 21),
}


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Make float64 the default, in which no gradient of these depths vanishes."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_linear(module: nn.Module) -> nn.Module:
    """Replace every layer by a linear one with the same reach: one channel, positive constant weights, no maxima."""
    for name, child in module.named_children():
        match child:
            case nn.Conv2d():
                linear = nn.LazyConv2d(
                    1, child.kernel_size, child.stride, child.padding, child.dilation, padding_mode=child.padding_mode
                )
            case nn.Linear():
                linear = nn.LazyLinear(1)
            case nn.MaxPool2d():
                linear = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
            case nn.AvgPool2d() | nn.AdaptiveAvgPool2d() | nn.Flatten() | nn.ZeroPad2d():
                linear = child
            case _ if any(child.children()):
                linear = make_linear(child)
            case _:
                linear = nn.Identity()
        setattr(module, name, linear)
    return module


def linear_twin(network: nn.Module, size: int) -> NetworkGraph:
    network = make_linear(network).eval()
    network(torch.zeros(2, 3, size, size))  # lets the lazy layers take their shapes
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.25)
    return NetworkGraph(network.requires_grad_(False), size)


def measured_box(output: Tensor, image: Tensor, y: int, x: int) -> Box:
    """Return the box around the pixels that one position's gradient reaches."""
    value = output[0].sum(dim=0)[y, x] if output.dim() == 4 else output.sum()
    (gradient,) = torch.autograd.grad(value, image, retain_graph=True)
    reached = gradient[0].abs().sum(dim=0)
    rows, columns = reached.sum(dim=1).nonzero().flatten().tolist(), reached.sum(dim=0).nonzero().flatten().tolist()
    return Box(rows[0], columns[0], rows[-1], columns[-1])


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", NETWORKS)
def test_box_of_every_layer_is_where_the_gradient_reaches(name: str) -> None:
    make, size = NETWORKS[name]
    graph, linear = NetworkGraph(make(), size), linear_twin(make(), size)
    image = torch.ones(1, 3, size, size, requires_grad=True)
    outputs = linear.run(image, keep=list(graph.layers))

    measured, computed = {}, {}
    for layer in graph.layers.values():
        y, x = (side // 2 for side in layer.out_shape[1:] or (1, 1))
        measured[layer.name] = measured_box(outputs[layer.name], image, y, x)
        computed[layer.name] = find_seen_pixels(graph, layer.name, y, x).clipped

    assert computed == measured


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "name",
    [
        *("guide", "residual", "dense", "two strides, two dilations"),
        "layers of zeros, more of them after than before",
    ],
)
def test_box_of_every_position_is_where_the_gradient_reaches(name: str) -> None:
    make, size = NETWORKS[name]
    graph, linear = NetworkGraph(make(), size), linear_twin(make(), size)
    layer = [layer for layer in graph.layers.values() if len(layer.out_shape) == 3][-1]
    image = torch.ones(1, 3, size, size, requires_grad=True)
    output = linear.run(image, keep=[layer.name])[layer.name]

    positions = [(y, x) for y in range(layer.out_shape[1]) for x in range(layer.out_shape[2])]
    assert len(positions) > 4
    for y, x in positions:
        assert find_seen_pixels(graph, layer.name, y, x).clipped == measured_box(output, image, y, x)


@pytest.mark.parametrize("name", STACKS)
def test_stacks_are_measured_at_positions_that_see_no_padding(name: str) -> None:
    make, size = NETWORKS[name]
    graph = NetworkGraph(make(), size)
    y, x = (side // 2 for side in graph.layers[graph.output].out_shape[1:])

    seen = find_seen_pixels(graph, graph.output, y, x)

    assert seen.full == seen.clipped


@pytest.mark.parametrize(
    ("architecture", "size", "layer", "expected"),
    [
        ("torchlight", 32, "conv1", ReceptiveField((5, 5), (1, 1), (2.0, 2.0))),
        ("torchlight", 32, "relu6", ReceptiveField((40, 40), (4, 4), (3.5, 3.5))),
        ("lenet5", 32, "conv3", ReceptiveField((32, 32), (4, 4), (15.5, 15.5))),
        ("alexnet", 224, "features.12", ReceptiveField((195, 195), (32, 32), (31.0, 31.0))),
        ("vgg16", 224, "features.30", ReceptiveField((212, 212), (32, 32), (15.5, 15.5))),
        ("resnet50", 224, "layer4.2.relu_2", ReceptiveField((427, 427), (32, 32), (0.0, 0.0))),
    ],
)
def test_known_networks_have_their_published_fields(
    architecture: str, size: int, layer: str, expected: ReceptiveField
) -> None:
    with torch.device("meta"):  # shapes without numbers: VGG has 138 million
        network = build_network(NetworkConfig(architecture, 10))

    assert receptive_fields(NetworkGraph(network, size))[layer] == expected


def test_airbench_sees_more_than_its_image() -> None:
    def block() -> list[nn.Module]:
        return [nn.Conv2d(3, 3, 3, padding="same"), nn.MaxPool2d(2), nn.Conv2d(3, 3, 3, padding="same")]

    network = nn.Sequential(nn.Conv2d(3, 3, 2), *block(), *block(), *block(), nn.MaxPool2d(3))
    graph = NetworkGraph(network, 32)

    assert receptive_fields(graph)["10"].size == (67, 67)
    assert find_seen_pixels(graph, "10", 0, 0).clipped == Box(0, 0, 31, 31)


@pytest.mark.parametrize(
    ("layer", "size"),
    [("avgpool", (224, 224)), ("flatten", (224, 224)), ("fc", (224, 224)), ("maxpool", (11, 11))],
)
def test_layers_after_the_global_pool_see_the_image_and_no_more(layer: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        graph = NetworkGraph(build_network(NetworkConfig("resnet18", 10)), 224)

    assert receptive_fields(graph)[layer].size == size


def test_adaptive_pool_that_changes_nothing_passes_the_field_through() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 3, stride=2), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(49, 2))

    same = receptive_fields(NetworkGraph(network, 15))

    assert same["0"] == same["1"] == ReceptiveField((3, 3), (2, 2), (1.0, 1.0))


def test_adaptive_pool_is_a_pool_where_sizes_divide_and_has_no_field_elsewhere() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 2))

    divides, overlaps = (receptive_fields(NetworkGraph(network, size)) for size in (12, 10))

    assert divides["1"] == ReceptiveField((3, 3), (3, 3), (1.0, 1.0))
    assert overlaps["1"] is None
    assert overlaps["3"] == ReceptiveField((10, 10), (0, 0), (4.5, 4.5))


def test_sides_of_the_kernel_are_kept_apart() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, (1, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 3)))
    graph = NetworkGraph(network, 16)

    assert receptive_fields(graph)["0"] == ReceptiveField((1, 13), (2, 1), (0.0, 4.0))
    assert find_seen_pixels(graph, "0", 3, 0).full == Box(6, -2, 6, 10)


def test_last_maps_of_the_backbone_see_more_than_its_image_and_boxes_end_at_the_border() -> None:
    with torch.device("meta"):
        graph = NetworkGraph(build_network(NetworkConfig("efficientnet_lite0", 10)), 224)

    assert receptive_fields(graph)["block2.depthwise"] == ReceptiveField((11, 11), (4, 4), (3.0, 3.0))
    assert find_seen_pixels(graph, "block2.depthwise", 0, 55) == SeenPixels(Box(-2, 218, 8, 228), Box(0, 218, 8, 223))
    assert receptive_fields(graph)["head.relu"] == ReceptiveField((851, 851), (32, 32), (31.0, 31.0))
    assert find_seen_pixels(graph, "head.relu", 3, 3).clipped == Box(0, 0, 223, 223)


@pytest.mark.parametrize("layer", ["add", "transpose"])
def test_positions_without_a_place_in_the_image_have_no_box(layer: str) -> None:
    graph = NetworkGraph(Disagreeing(), 16)

    assert receptive_fields(graph)[layer] is None
    with pytest.raises(ViewNotApplicable, match=f"positions of layer '{layer}' have no known place"):
        find_seen_pixels(graph, layer, 0, 0)


def test_vector_after_such_positions_sees_the_image() -> None:
    graph = NetworkGraph(Disagreeing(), 16)

    assert find_seen_pixels(graph, "fc", 0, 0).full == Box(0, 0, 15, 15)


def test_position_that_sees_nothing_but_padding_has_no_clipped_box() -> None:
    graph = NetworkGraph(nn.Sequential(nn.Conv2d(3, 1, 1, padding=2)), 8)

    corner = find_seen_pixels(graph, "0", 0, 5)

    assert corner.full == Box(-2, 3, -2, 3)
    assert corner.clipped is None


@pytest.mark.parametrize(("y", "x"), [(28, 0), (0, 28), (-1, 0), (0, -1)])
def test_position_outside_the_map_is_refused_with_the_limits(y: int, x: int) -> None:
    graph = NetworkGraph(build_network(NetworkConfig("lenet5", 2)), 32)

    with pytest.raises(PositionOutOfRange, match=rf"y={y}, x={x} .* 'conv1' has 28x28 positions, y 0 to 27"):
        find_seen_pixels(graph, "conv1", y, x)


def test_vector_has_one_position() -> None:
    graph = NetworkGraph(build_network(NetworkConfig("lenet5", 2)), 32)

    with pytest.raises(PositionOutOfRange, match="'fc1' has 1x1 positions"):
        find_seen_pixels(graph, "fc1", 0, 1)


def test_unknown_layer_is_refused() -> None:
    with pytest.raises(UnknownLayer, match="'conv9'"):
        find_seen_pixels(NetworkGraph(build_network(NetworkConfig("lenet5", 2)), 32), "conv9", 0, 0)


def test_window_spells_out_every_setting() -> None:
    assert window(nn.Conv2d(1, 1, 4, padding="same", dilation=3)) == Window((4, 4), (1, 1), (4, 4), (3, 3))
    assert window(nn.Conv2d(1, 1, 3, padding="valid")) == Window((3, 3), (1, 1), (0, 0), (1, 1))
    assert window(nn.MaxPool2d(3, padding=1)) == Window((3, 3), (3, 3), (1, 1), (1, 1))
    assert window(nn.AvgPool2d((2, 1))) == Window((2, 1), (2, 1), (0, 0), (1, 1))
    assert window(nn.ZeroPad2d((1, 2, 3, 4))) == Window((1, 1), (1, 1), (3, 1), (1, 1))
    assert window(nn.ReLU()) is None
    assert window(None) is None
