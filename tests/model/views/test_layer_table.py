"""The layer table: sums that must agree with the network, and the views each kind of layer has."""

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.errors import ViewNotApplicable
from torchlight.model.graph import NetworkGraph
from torchlight.model.network import NetworkConfig, build_network, count_multiply_adds, count_parameters
from torchlight.model.views.layer_table import LayerFacts, describe_layers, first_convolution_name
from torchlight.model.views.receptive_field import ReceptiveField
from torchlight.model.views.trace import find_trace_obstacle

MAP_VIEWS = ("activations", "trace", "receptive_field", "reconstructions", "grad_cam", "hires_cam")


class Tokens(nn.Module):
    """Cuts the image into patches and adds them up as tokens, as a vision transformer does."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, stride=4)
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(self.norm(tokens)).mean(1))


def graph_of(architecture: str, size: int) -> NetworkGraph:
    with torch.device("meta"):  # shapes without numbers
        return NetworkGraph(build_network(NetworkConfig(architecture, 10)), size)


def table(graph: NetworkGraph) -> dict[str, LayerFacts]:
    return {facts.name: facts for facts in describe_layers(graph)}


@pytest.mark.parametrize(
    ("architecture", "size"), [("torchlight", 32), ("lenet5", 32), ("resnet18", 64), ("mobilenet_v3_small", 64)]
)
def test_parameters_and_multiply_adds_add_up_to_the_networks(
    make_network: Callable[..., nn.Module], architecture: str, size: int
) -> None:
    network = make_network(architecture)

    facts = describe_layers(NetworkGraph(network, size))

    assert sum(row.parameters for row in facts) == count_parameters(network)
    assert sum(row.multiply_adds for row in facts) == count_multiply_adds(network, size)


def test_first_convolution_of_the_guide_is_described_in_full() -> None:
    assert describe_layers(graph_of("guide", 32))[0] == LayerFacts(
        name="conv1",
        type="Conv2d",
        inputs=("input",),
        kernel_size=(5, 5),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
        in_shapes=((3, 32, 32),),
        out_shape=(32, 28, 28),
        parameters=32 * 75 + 32,
        multiply_adds=32 * 784 * 75,
        receptive_field=ReceptiveField((5, 5), (1, 1), (2.0, 2.0)),
        views=("filters", *MAP_VIEWS),
    )


def test_rows_are_in_order_of_execution() -> None:
    graph = graph_of("resnet18", 64)

    assert [facts.name for facts in describe_layers(graph)] == list(graph.layers)


def test_settings_of_a_window_are_pairs_and_others_have_none() -> None:
    rows = table(graph_of("resnet18", 64))

    pool, norm, add = rows["maxpool"], rows["bn1"], rows["layer1.0.add"]
    assert (pool.kernel_size, pool.stride, pool.padding, pool.dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
    assert pool.groups is norm.kernel_size is norm.stride is add.padding is add.dilation is None
    assert (pool.parameters, norm.parameters, add.parameters) == (0, 128, 0)
    assert add.in_shapes == ((64, 16, 16), (64, 16, 16))


def test_depthwise_convolution_counts_one_input_channel_for_each_filter() -> None:
    facts = table(graph_of("mobilenet_v3_small", 64))["features.1.block.0.0"]

    assert (facts.groups, facts.stride) == (16, (2, 2))
    assert facts.parameters == 16 * 9
    assert facts.multiply_adds == 16 * 16 * 16 * 9


@pytest.mark.parametrize(
    ("layer", "views"),
    [
        ("conv1", ("filters", *MAP_VIEWS)),
        ("relu1", MAP_VIEWS),
        ("pool3", MAP_VIEWS),
        ("global_pool", ("activations", "trace", "receptive_field", "reconstructions")),
        ("fc", ("trace", "receptive_field", "reconstructions")),
    ],
)
def test_layers_of_the_default_network_have_their_views(layer: str, views: tuple[str, ...]) -> None:
    assert table(graph_of("torchlight", 32))[layer].views == views


def test_reconstructions_end_where_the_first_layer_without_a_way_down_begins() -> None:
    rows = table(graph_of("mobilenet_v3_small", 64))

    with_way_down = [name for name, facts in rows.items() if "reconstructions" in facts.views]

    assert with_way_down == ["features.0.0", "features.0.1"]
    assert rows["features.0.2"].type == "Hardswish"


def test_tokens_have_neither_maps_nor_places_nor_traces() -> None:
    rows = table(NetworkGraph(Tokens(), 16))

    assert rows["patches"].views == ("filters", *MAP_VIEWS)
    assert rows["norm"].views == rows["mix"].views == ()
    assert rows["norm"].receptive_field is None
    assert rows["head"].views == ("trace", "receptive_field")
    assert rows["mix"].multiply_adds == 16 * 4 * 4


def test_layers_of_the_backbone_have_their_views() -> None:
    rows = table(graph_of("efficientnet_lite0_multilevel", 224))
    without_way_down = tuple(view for view in MAP_VIEWS if view != "reconstructions")

    assert rows["stem.pad"].views == rows["stem.bn"].views == MAP_VIEWS
    assert (rows["stem.pad"].kernel_size, rows["stem.pad"].padding) == ((1, 1), (0, 0))
    assert rows["stem.relu"].views == rows["block3.add"].views == rows["level1.pool"].views == without_way_down
    assert rows["block2.depthwise"].views == ("filters", *without_way_down)
    assert (rows["block2.depthwise"].groups, rows["block2.depthwise"].in_shapes) == (96, ((96, 113, 113),))
    assert rows["cat"].views == rows["fc"].views == ("trace", "receptive_field")


@pytest.mark.parametrize("architecture", ["googlenet", "shufflenet_v2_x0_5", "convnext_tiny", "swin_t"])
def test_networks_of_every_make_are_described(architecture: str) -> None:
    graph = graph_of(architecture, 64)

    facts = describe_layers(graph)

    assert [row.name for row in facts if "trace" in row.views] == [
        layer.name for layer in graph.layers.values() if find_trace_obstacle(layer) is None
    ]
    assert facts[-1].receptive_field == ReceptiveField((64, 64), (0, 0), (31.5, 31.5))


def test_rows_become_json() -> None:
    rows = [dataclasses.asdict(facts) for facts in describe_layers(graph_of("torchlight", 32))]

    first = json.loads(json.dumps(rows))[0]

    assert first["kernel_size"] == [5, 5]
    assert first["receptive_field"] == {"size": [5, 5], "jump": [1, 1], "start": [2.0, 2.0]}


def test_first_convolution_is_the_one_that_sees_the_image() -> None:
    assert first_convolution_name(graph_of("resnet18", 64)) == "conv1"
    assert first_convolution_name(graph_of("mobilenet_v3_small", 64)) == "features.0.0"


def test_network_without_a_convolution_has_no_first_one() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))

    with pytest.raises(ViewNotApplicable, match="no convolution"):
        first_convolution_name(NetworkGraph(network, 4))
