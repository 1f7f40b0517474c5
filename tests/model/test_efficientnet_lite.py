"""EfficientNet-Lite: the published sizes, where the padding goes, and what a multilevel head reads."""

import pytest
import torch
from torch import nn

from torchlight.model.efficientnet_lite import EFFICIENTNET_LITES, SIZES
from torchlight.model.graph import NetworkGraph
from torchlight.model.network import (
    NetworkConfig,
    build_network,
    count_multiply_adds,
    count_parameters,
    default_image_size,
)


# Published by Google: 4.7, 5.4 and 6.1 million parameters; 407, 631 and 899 million multiply-adds with batch norm.
@pytest.mark.parametrize(
    ("name", "parameters", "millions"),
    [
        ("efficientnet_lite0", 4_652_008, 385),
        ("efficientnet_lite1", 5_416_680, 600),
        ("efficientnet_lite2", 6_092_072, 860),
    ],
)
def test_sizes_are_the_published_ones(name, parameters, millions):
    network = build_network(NetworkConfig(name, 1000))
    assert count_parameters(network) == parameters
    assert round(count_multiply_adds(network, SIZES[name].image_size) / 1e6) == millions


@pytest.mark.parametrize("name", EFFICIENTNET_LITES)
def test_maps_halve_five_times_and_every_layer_has_a_name(name):
    side = default_image_size(name)
    graph = NetworkGraph(build_network(NetworkConfig(name, 3)), side)
    for layer in ("stem.conv", "block2.depthwise", "head.conv"):
        side_of_layer = {"stem.conv": 2, "block2.depthwise": 4, "head.conv": 32}[layer]
        assert graph.layers[layer].out_shape[1] == -(-side // side_of_layer)
    assert graph.output == "fc"


def test_one_more_row_of_zeros_is_below_and_right_where_they_cannot_be_shared_out():
    network = build_network(NetworkConfig("efficientnet_lite0", 3))
    padded = {
        name: tuple(module.padding) for name, module in network.named_modules() if isinstance(module, nn.ZeroPad2d)
    }
    assert padded == {
        "stem.pad": (0, 1, 0, 1),
        "block2.pad": (0, 1, 0, 1),
        "block4.pad": (1, 2, 1, 2),
        "block6.pad": (0, 1, 0, 1),
        "block12.pad": (1, 2, 1, 2),
    }


def test_multilevel_head_reads_two_levels_and_the_last_means():
    plain = build_network(NetworkConfig("efficientnet_lite0", 3)).eval()
    wide = build_network(NetworkConfig("efficientnet_lite0_multilevel", 3)).eval()
    wide.load_state_dict({name: value for name, value in plain.state_dict().items() if "fc" not in name}, strict=False)
    with torch.no_grad():
        wide.fc.weight[:, :-1280] = 0
        wide.fc.weight[:, -1280:] = plain.fc.weight
        wide.fc.bias.copy_(plain.fc.bias)
        images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(wide(images), plain(images), atol=1e-6)
        maps = nn.Sequential(*list(plain)[:12])(images)  # to the end of block11
        places = wide.level1(maps).unflatten(1, (112, 4, 4))
    assert maps.shape[2:] == (14, 14)
    assert torch.allclose(places[:, :, 1, 2], maps[:, :, 3:8, 6:11].mean((2, 3)), atol=1e-6)
