"""The arithmetic of one number: the trace against the layer, for every kind of layer and every setting of a window."""

import json
import math
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Permute

from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.classifier import Classifier
from torchlight.model.errors import ChannelOutOfRange, PositionOutOfRange, UnknownLayer, ViewNotApplicable
from torchlight.model.graph import INPUT
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.views.activations import activation_maps
from torchlight.model.views.trace import (
    Activation,
    AveragePool,
    BatchNorm,
    Convolution,
    Copy,
    Linear,
    MaxPool,
    Padding,
    Position,
    Product,
    Softmax,
    Sum,
    Trace,
    find_trace_obstacle,
    trace,
)

NETWORKS = {"torchlight": 32, "guide": 32, "lenet5": 32, "resnet18": 64, "mobilenet_v3_small": 64}
BACKBONES = {"efficientnet_lite0": 64, "efficientnet_lite0_multilevel": 224, "convnext_tiny": 64}
CONVOLUTIONS = [
    {"kernel_size": 3},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": 5, "stride": 3, "padding": 2},
    {"kernel_size": (2, 5), "stride": (1, 2), "padding": (0, 3)},
    {"kernel_size": 3, "dilation": 3, "padding": 2},
    {"kernel_size": 3, "dilation": (1, 2), "groups": 2, "padding": 1},
    {"kernel_size": 3, "groups": 4, "stride": 2},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": (4, 2), "padding": "same", "dilation": (1, 3), "padding_mode": "replicate"},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
    {"kernel_size": 5, "padding": (2, 1), "padding_mode": "replicate", "stride": 2},
    {"kernel_size": 5, "padding": (1, 3), "padding_mode": "circular"},
]
ACTIVATIONS = [
    *(nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.GELU(), nn.GELU("tanh")),
    *(nn.SiLU(), nn.Mish(), nn.Softplus(beta=2), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.Hardtanh(-0.3, 0.4)),
    *(nn.Hardsigmoid(), nn.Hardswish(), nn.Softsign(), nn.CELU(2.0)),
]


class Branches(nn.Module):
    """Joins and functions, as torchvision's networks use them."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 2, 3, padding=1)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        left += torch.sigmoid(left)
        left = self.squeeze(left) * left
        joined = F.relu(torch.cat([left, self.right(x)], 1))
        joined = torch.flatten(F.adaptive_avg_pool2d(joined, 2), 1) + 1
        return self.fc(self.dropout(joined[:, :6])) + x.mean([2, 3])


def classifier_of(network: nn.Module, size: int, mean: float = 0.5, std: float = 0.25) -> Classifier:
    names = tuple("abcdefghij")
    spec = ImageSpec(size, (mean,) * 3, (std,) * 3)
    header = Header(NetworkConfig("guide", len(names)), names, spec, {}, {}, {}, {})
    network = network.eval().requires_grad_(False)
    return Classifier(Checkpoint(header, network, "sha256:test", Path("x")), torch.device("cpu"))


def noise(size: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def random_classifier(architecture: str, size: int) -> Classifier:
    """Return a network with random weights (no partial identities), its batch norm as if it had seen images."""
    torch.manual_seed(0)
    network = build_network(NetworkConfig(architecture, 10))
    for convolution in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        nn.init.kaiming_normal_(convolution.weight)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.bias, std=0.3)
    return classifier_of(network, size)


@pytest.fixture(scope="module")
def lenet5() -> Classifier:
    return random_classifier("lenet5", 32)


@pytest.fixture(scope="module")
def branches() -> Classifier:
    torch.manual_seed(0)
    return classifier_of(Branches(), 8)


def places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return every channel with the first, middle and last row and column."""
    return list(product(range(shape[0]), *(sorted({0, side // 2, side - 1}) for side in shape[1:])))


def traces_of_second(layer: nn.Module, channels: int = 4, size: int = 9) -> list[Trace]:
    """Return traces of a layer that reads the maps of a first convolution, on borders and inside."""
    torch.manual_seed(0)
    classifier = classifier_of(nn.Sequential(nn.Conv2d(3, channels, 1), layer, nn.Flatten()), size)
    shape = classifier.graph.layers["1"].out_shape
    return [trace(classifier, noise(size), "1", *place) for place in places(shape)]


def test_thousand_numbers_of_five_networks_agree_with_the_framework() -> None:
    generator = torch.Generator().manual_seed(0)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    ratios = {}
    for architecture, size in NETWORKS.items():
        classifier = random_classifier(architecture, size)
        layers = [layer for layer in classifier.graph.layers.values() if layer.type in ("Conv2d", "Linear")]
        for number in range(200):
            layer = layers[below(len(layers))]
            position = [below(side) for side in layer.out_shape]
            traced = trace(classifier, noise(size, seed=number % 10), layer.name, *position)
            magnitude = max(traced.arithmetic.magnitude, sys.float_info.min)  # zero where all inputs are dead
            ratios[architecture, number, layer.name, *position] = abs(traced.difference) / magnitude

    worst = max(ratios, key=lambda place: ratios[place])
    print(f"worst |trace - framework| / (|bias| + sum|w*x|) of {len(ratios)}: {ratios[worst]:.2g} at {worst}")
    assert len(ratios) == 1000
    assert ratios[worst] <= 1e-5


@pytest.mark.slow
def test_thousand_numbers_of_the_backbone_agree_with_the_framework(
    make_backbone: Callable[[str], Classifier],
) -> None:
    generator, classifier = torch.Generator().manual_seed(0), make_backbone("efficientnet_lite0_multilevel")
    layers = list(classifier.graph.layers.values())
    ratios = {}
    for number in range(1000):
        layer = layers[int(torch.randint(len(layers), (), generator=generator))]
        position = [int(torch.randint(side, (), generator=generator)) for side in layer.out_shape]
        traced = trace(classifier, noise(224, seed=number % 10), layer.name, *position)
        ratios[layer.name, *position] = abs(traced.difference) / max(traced.arithmetic.magnitude, sys.float_info.min)

    worst = max(ratios, key=lambda place: ratios[place])
    print(f"worst |trace - framework| / magnitude of {len(ratios)}: {ratios[worst]:.2g} at {worst}")
    assert len(ratios) > 990  # a vector may be asked twice for one number
    assert ratios[worst] <= 1e-5


@pytest.mark.parametrize("architecture", [*NETWORKS, "efficientnet_lite0"])
def test_every_layer_of_these_networks_can_be_traced(architecture: str) -> None:
    size = {**NETWORKS, **BACKBONES}[architecture]
    classifier = random_classifier(architecture, size)

    for layer in classifier.graph.layers.values():
        traced = trace(classifier, noise(size), layer.name, *(side // 2 for side in layer.out_shape))
        assert traced.holds, layer.name


@pytest.mark.parametrize("architecture", ["efficientnet_lite0_multilevel", "convnext_tiny"])
def test_last_layer_of_each_type_of_a_backbone_is_traced_or_refused(architecture: str) -> None:
    size = BACKBONES[architecture]
    classifier = random_classifier(architecture, size)
    last = {layer.type: layer for layer in classifier.graph.layers.values()}

    refused = {name for name, layer in last.items() if find_trace_obstacle(layer) is not None}
    for layer in (layer for name, layer in last.items() if name not in refused):
        assert trace(classifier, noise(size), layer.name, *(side - 1 for side in layer.out_shape)).holds, layer.name

    assert (
        refused
        == {"efficientnet_lite0_multilevel": set(), "convnext_tiny": {"LayerNorm2d", "LayerNorm", "mul"}}[architecture]
    )


def test_layer_of_zeros_copies_a_number_or_adds_a_zero() -> None:
    traces = traces_of_second(nn.ZeroPad2d((1, 2, 0, 3)))  # left, right, top, bottom of 9x9
    found = {traced.position: traced.arithmetic for traced in traces if traced.position.channel == 3}

    assert all(traced.holds for traced in traces)
    assert found[Position(3, 6, 6)] == Copy(
        source="0", source_position=Position(3, 6, 5), total=found[Position(3, 6, 6)].total, magnitude=0.0
    )
    assert isinstance(found[Position(3, 0, 6)], Copy)  # no row before the first
    assert found[Position(3, 6, 0)] == found[Position(3, 11, 11)] == Padding(total=0.0, magnitude=0.0)


def test_linear_layer_on_maps_reads_the_channels_of_one_place() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 5)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Permute([0, 2, 3, 1]), linear, Permute([0, 3, 1, 2]), nn.Flatten())
    classifier = classifier_of(network, 4)

    traced = trace(classifier, noise(4), "2", 4, 3, 1)

    assert isinstance(traced.arithmetic, Linear)
    assert traced.holds
    assert torch.equal(traced.arithmetic.inputs.float(), activation_maps(classifier, noise(4), "0")[:, 3, 1])
    assert isinstance(trace(classifier, noise(4), "1.permute", 2, 3, 1).arithmetic, Copy)


def test_whole_layer_by_traces_is_the_layer() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    classifier = classifier_of(nn.Sequential(convolution, nn.Flatten()), 8)
    maps = activation_maps(classifier, noise(8), "0")

    traces = [trace(classifier, noise(8), "0", *place) for place in product(range(4), range(4), range(4))]

    totals = torch.tensor([traced.total for traced in traces]).view(4, 4, 4)
    assert (totals - maps).abs().max() <= 1e-5 * maps.abs().max()
    assert [traced.framework for traced in traces] == maps.flatten().tolist()


def test_guides_window_has_75_products_and_the_sum_done_by_hand() -> None:
    network = build_network(NetworkConfig("guide", 10))
    network.conv1.weight.data[7, 0], network.conv1.weight.data[7, 1], network.conv1.weight.data[7, 2] = 1, 0, -2
    network.conv1.bias.data[7] = 0.5
    image = torch.tensor([255, 51, 102], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32)

    traced = trace(classifier_of(network, 32, mean=0, std=1), image, "conv1", 7, 27, 3)

    arithmetic = traced.arithmetic
    assert isinstance(arithmetic, Convolution)
    assert arithmetic.products.shape == (3, 5, 5)
    assert arithmetic.products.numel() == 75
    assert arithmetic.channel_sums.tolist() == pytest.approx([25 * 1, 25 * 0.2 * 0, 25 * 0.4 * -2])
    assert traced.total == pytest.approx(25 - 20 + 0.5)
    assert arithmetic.magnitude == pytest.approx(25 + 20 + 0.5)
    assert (arithmetic.rows, arithmetic.columns) == ([27, 28, 29, 30, 31], [3, 4, 5, 6, 7])
    assert not arithmetic.in_padding.any()
    assert traced.holds


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_convolution_with_any_window_is_traced(settings: dict[str, object]) -> None:
    for traced in traces_of_second(nn.Conv2d(4, 8, **settings)):
        arithmetic = traced.arithmetic
        assert isinstance(arithmetic, Convolution)
        assert traced.holds
        assert arithmetic.patch.shape == arithmetic.weights.shape == arithmetic.products.shape
        assert arithmetic.channel_sums.sum().item() + arithmetic.bias == pytest.approx(traced.total)


def test_corner_of_a_padded_convolution_names_the_cells_in_the_padding() -> None:
    arithmetic = traces_of_second(nn.Conv2d(4, 1, 3, padding=1))[0].arithmetic

    assert isinstance(arithmetic, Convolution)
    assert (arithmetic.rows, arithmetic.columns) == ([-1, 0, 1], [-1, 0, 1])
    assert arithmetic.in_padding.tolist() == [[True, True, True], [True, False, False], [True, False, False]]
    assert (arithmetic.patch[:, arithmetic.in_padding] == 0).all()


def test_grouped_convolution_says_which_input_channels_it_reads() -> None:
    traced = traces_of_second(nn.Conv2d(4, 8, 1, groups=2))

    first = {t.position.channel: t.arithmetic.first_input_channel for t in traced}

    assert first == {0: 0, 1: 0, 2: 0, 3: 0, 4: 2, 5: 2, 6: 2, 7: 2}


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_traced_step_by_step(affine: bool) -> None:
    norm = nn.BatchNorm2d(4, eps=0.01, affine=affine)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)

    for traced in traces_of_second(norm):
        step = traced.arithmetic
        assert isinstance(step, BatchNorm)
        assert traced.holds
        by_hand = (step.input - step.mean) / math.sqrt(step.variance + step.eps) * step.weight + step.bias
        assert by_hand == pytest.approx(traced.total)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activation_is_applied_to_one_number(activation: nn.Module) -> None:
    for traced in traces_of_second(activation):
        assert isinstance(traced.arithmetic, Activation)
        assert traced.holds


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d((2, 3), stride=1, dilation=(1, 2)),
        nn.MaxPool2d(2, ceil_mode=True),
    ],
    ids=str,
)
def test_max_pool_says_which_place_won(pool: nn.MaxPool2d) -> None:
    traces = traces_of_second(pool)
    torch.manual_seed(0)
    classifier = classifier_of(nn.Sequential(nn.Conv2d(3, 4, 1)), 9)
    maps = activation_maps(classifier, noise(9), "0")
    _, indices = F.max_pool2d(
        maps, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )

    for traced in traces:
        assert isinstance(traced.arithmetic, MaxPool)
        assert traced.difference == 0
        assert traced.holds
        y, x = traced.arithmetic.winner
        assert y * 9 + x == indices[traced.position]


def test_first_of_equal_numbers_wins_the_max_pool() -> None:
    pools = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Hardtanh(5, 6), nn.MaxPool2d(3, padding=1))

    arithmetic = trace(classifier_of(pools, 9), noise(9), "2", 0, 0, 1).arithmetic

    assert isinstance(arithmetic, MaxPool)
    assert arithmetic.winner == (0, 2)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.AvgPool2d((2, 3), stride=2, padding=(1, 0), ceil_mode=True),
        nn.AvgPool2d(4, stride=4, padding=2, ceil_mode=True),
        nn.AvgPool2d(3, padding=1, divisor_override=5),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((3, 4)),
        nn.AdaptiveAvgPool2d((9, 12)),
    ],
    ids=str,
)
def test_average_pool_counts_what_the_framework_counts(pool: nn.Module) -> None:
    for traced in traces_of_second(pool):
        arithmetic = traced.arithmetic
        assert isinstance(arithmetic, AveragePool)
        assert traced.holds
        assert arithmetic.patch.shape == (len(arithmetic.rows), len(arithmetic.columns))


def test_linear_layer_shows_every_term(lenet5: Classifier) -> None:
    traced = trace(lenet5, noise(32), "fc1", 83)

    arithmetic = traced.arithmetic
    assert isinstance(arithmetic, Linear)
    assert traced.holds
    assert len(arithmetic.inputs) == len(arithmetic.weights) == len(arithmetic.products) == 120
    assert traced.total == pytest.approx(arithmetic.products.sum().item() + arithmetic.bias)


def test_softmax_is_the_answer_and_sums_to_one(lenet5: Classifier) -> None:
    traces = [trace(lenet5, noise(32), "softmax", channel) for channel in range(10)]

    assert all(isinstance(traced.arithmetic, Softmax) and traced.holds for traced in traces)
    assert math.fsum(traced.total for traced in traces) == pytest.approx(1, abs=1e-12)
    served = lenet5.probabilities(noise(32)[None])[0]
    assert [traced.framework for traced in traces] == pytest.approx(served.tolist(), rel=1e-6)
    arithmetic = traces[3].arithmetic
    assert arithmetic.exponentials.max() == 1
    assert arithmetic.exponentials.sum().item() == pytest.approx(arithmetic.sum)


@pytest.mark.parametrize(
    ("layer", "position", "kind"),
    [
        ("sigmoid", (1, 2, 3), Activation),
        ("add", (1, 2, 3), Sum),
        ("mul", (3, 7, 0), Product),
        ("relu", (5, 0, 0), Activation),
        ("adaptive_avg_pool2d", (5, 1, 0), AveragePool),
        ("mean", (2,), AveragePool),
        ("dropout", (4,), Copy),
        ("add_2", (1,), Sum),
    ],
)
def test_functions_are_traced_like_modules(
    branches: Classifier, layer: str, position: tuple[int, ...], kind: type
) -> None:
    traced = trace(branches, noise(8), layer, *position)

    assert isinstance(traced.arithmetic, kind)
    assert traced.holds


def test_sum_and_product_list_their_branches(branches: Classifier) -> None:
    maps = {name: activation_maps(branches, noise(8), name) for name in ("left", "sigmoid", "squeeze", "add")}

    added = trace(branches, noise(8), "add", 1, 2, 3).arithmetic
    scaled = trace(branches, noise(8), "mul", 1, 2, 3).arithmetic

    assert added.terms == [maps["left"][1, 2, 3].item(), maps["sigmoid"][1, 2, 3].item()]
    assert scaled.factors == [maps["squeeze"][1, 0, 0].item(), maps["add"][1, 2, 3].item()]


@pytest.mark.parametrize(
    ("layer", "position", "source", "source_position"),
    [
        ("cat", (3, 1, 2), "mul", Position(3, 1, 2)),
        ("cat", (4, 1, 2), "right", Position(0, 1, 2)),
        ("flatten", (7,), "adaptive_avg_pool2d", Position(1, 1, 1)),
        ("dropout", (4,), "getitem", Position(4, 0, 0)),
    ],
)
def test_copy_says_where_the_number_comes_from(
    branches: Classifier, layer: str, position: tuple[int, ...], source: str, source_position: Position
) -> None:
    traced = trace(branches, noise(8), layer, *position)

    assert isinstance(traced.arithmetic, Copy)
    assert (traced.arithmetic.source, traced.arithmetic.source_position) == (source, source_position)
    assert traced.difference == 0


def test_inputs_are_those_of_the_layer_before(lenet5: Classifier) -> None:
    before = activation_maps(lenet5, noise(32), "pool1")

    arithmetic = trace(lenet5, noise(32), "conv2", 9, 4, 5).arithmetic

    assert torch.equal(arithmetic.patch.float(), before[:, 4:9, 5:10])


@pytest.mark.parametrize("layer", ["conv1", "tanh1", "pool1", "fc1", "flatten", "softmax"])
def test_dict_survives_json_in_full_precision(lenet5: Classifier, layer: str) -> None:
    traced = trace(lenet5, noise(32), layer, 2)

    facts = traced.to_dict()

    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert (facts["layer"], facts["channel"], facts["y"], facts["x"]) == (layer, 2, 0, 0)
    assert facts["kind"] == type(traced.arithmetic).__name__
    assert (facts["total"], facts["framework"], facts["difference"]) == (
        traced.total,
        traced.framework,
        traced.total - traced.framework,
    )
    assert facts["holds"] is True


def test_cells_beyond_the_map_are_null_under_a_max_pool() -> None:
    facts = traces_of_second(nn.MaxPool2d(3, padding=1))[0].to_dict()

    assert facts["patch"][0] == [None, None, None]
    assert None not in facts["patch"][1][1:]


def test_numbers_that_are_not_finite_never_hold() -> None:
    convolution = nn.Conv2d(4, 1, 1)
    convolution.weight.data[:] = math.inf

    traced = traces_of_second(convolution)[0]

    assert not traced.holds
    assert traced.to_dict()["total"] is None
    assert json.dumps(traced.to_dict(), allow_nan=False)


def test_trace_that_disagrees_does_not_hold(lenet5: Classifier) -> None:
    right = trace(lenet5, noise(32), "conv1", 0)

    wrong = Trace(right.layer, right.type, right.position, right.arithmetic, right.framework + 2 * right.bound)

    assert right.holds
    assert not wrong.holds


def test_tracing_changes_nothing_that_prediction_answers(lenet5: Classifier) -> None:
    before = lenet5.logits(noise(32)[None])

    trace(lenet5, noise(32), "conv3", 100)

    assert torch.equal(lenet5.logits(noise(32)[None]), before)
    assert all(parameter.grad is None for parameter in lenet5.network.parameters())
    assert not any(module._forward_hooks for module in lenet5.network.modules())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("conv9", 0), UnknownLayer, "'conv9' does not exist"),
        ((INPUT, 0), UnknownLayer, "'input' does not exist"),
        (("conv1", 6), ChannelOutOfRange, "channel 6 .* 'conv1' has channels 0 to 5"),
        (("conv1", -1), ChannelOutOfRange, "channel -1"),
        (("softmax", 10), ChannelOutOfRange, "'softmax' has channels 0 to 9"),
        (("conv1", 0, 28, 0), PositionOutOfRange, "y=28, x=0 .* 'conv1' has 28x28 positions"),
        (("conv1", 0, 0, -1), PositionOutOfRange, "x=-1"),
        (("fc1", 0, 1, 0), PositionOutOfRange, "'fc1' has 1x1 positions"),
    ],
)
def test_number_that_does_not_exist_is_refused(
    lenet5: Classifier, arguments: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trace(lenet5, noise(32), *arguments)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.PReLU(), "layer '1' is of type PReLU and cannot be traced"),
        (nn.LayerNorm(9), "is of type LayerNorm"),
        (nn.Linear(9, 2), r"is a Linear of an unusual form \(4x9x9 -> 4x9x2\)"),
        (nn.BatchNorm2d(4, track_running_stats=False), "is a BatchNorm2d of an unusual form"),
        (nn.Flatten(2), r"is a Flatten of an unusual form \(4x9x9 -> 4x81\)"),
    ],
)
def test_layer_of_another_kind_is_refused_with_the_reason(layer: nn.Module, message: str) -> None:
    with pytest.raises(ViewNotApplicable, match=message):
        traces_of_second(layer)


@pytest.mark.parametrize("name", ["getitem", "add_1"])
def test_function_whose_arguments_are_unknown_is_refused(branches: Classifier, name: str) -> None:
    assert find_trace_obstacle(branches.graph.find_layer(name)) is not None
    with pytest.raises(ViewNotApplicable, match=f"layer '{name}' is .* cannot be traced"):
        trace(branches, noise(8), name, 0)


def test_network_of_less_precision_is_refused() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3).bfloat16()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.bfloat16()).float()

    with pytest.raises(ViewNotApplicable, match=r"computes in torch\.bfloat16; traces are for float32"):
        trace(classifier_of(Half(), 8), noise(8), "conv", 0)
