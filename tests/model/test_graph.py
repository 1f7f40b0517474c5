"""The layers of the served network by name, what each gives, and that looking changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import NodePathTracer

from torchlight.model.errors import UnknownLayer, ViewNotApplicable
from torchlight.model.graph import INPUT, NetworkGraph
from torchlight.model.views.layer_table import first_convolution_name

MakeNetwork = Callable[..., nn.Module]


class TwoBranches(nn.Module):
    """In-place steps, a module that runs twice, a sum and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.conv(x)
        bent = self.relu(stem)
        total = bent * 2
        total += bent
        total = nn.functional.relu(total - 1, inplace=True)
        return self.relu(torch.cat([total, -bent], 1)).mean((2, 3))


def normalised(number: int = 2, size: int = 32) -> Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ["torchlight", "guide", "lenet5"])
def test_layers_of_our_networks_are_their_steps_in_order(architecture: str, make_network: MakeNetwork) -> None:
    network = make_network(architecture)
    graph = NetworkGraph(network, 32)
    steps = dict(network.named_children())
    assert list(graph.layers) == list(steps)
    assert [layer.type for layer in graph.layers.values()] == [type(step).__name__ for step in steps.values()]
    assert [layer.inputs for layer in graph.layers.values()] == [(name,) for name in [INPUT, *steps][:-1]]
    assert graph.output == list(steps)[-1]


def test_shapes_of_the_guide_are_the_guides(make_network: MakeNetwork) -> None:
    layers = NetworkGraph(make_network("guide", 10), 32).layers
    assert {name: layer.out_shape for name, layer in layers.items()} == {
        "conv1": (32, 28, 28), "relu1": (32, 28, 28), "conv2": (32, 24, 24), "relu2": (32, 24, 24),
        "pool1": (32, 12, 12), "relu3": (32, 12, 12), "conv3": (64, 8, 8), "relu4": (64, 8, 8),
        "pool2": (64, 4, 4), "flatten": (1024,), "fc": (10,),
    }  # fmt: skip
    assert layers["conv1"].in_shapes == ((3, 32, 32),)
    assert layers["fc"].in_shapes == ((1024,),)


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("torchlight", 32), ("resnet18", 64), ("mobilenet_v3_small", 64), ("googlenet", 64)],
)
def test_graph_gives_the_networks_own_logits(architecture: str, size: int, make_network: MakeNetwork) -> None:
    network = make_network(architecture)
    graph = NetworkGraph(network, size)
    images = normalised(2, size)
    with torch.inference_mode():
        logits = graph.run(images, [graph.output])[graph.output]
        assert torch.equal(logits, network(images))
    assert graph.layers[graph.output].out_shape == (3,)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "googlenet"])
def test_layers_have_the_names_that_torchvisions_tracer_gives(architecture: str, make_network: MakeNetwork) -> None:
    network = make_network(architecture)
    tracer = NodePathTracer()
    tracer.trace(network)
    expected = [name for node, name in tracer.node_to_qualname.items() if node.op not in ("placeholder", "output")]
    assert [name for name in expected if name in NetworkGraph(network, 64).layers] == expected


def test_module_named_like_a_second_run_keeps_a_name_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bend, self.bend_1, self.fc = nn.ReLU(), nn.Tanh(), nn.Linear(3 * 4 * 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.bend_1(self.bend(self.bend(x))).flatten(1))

    layers = NetworkGraph(Twice().eval(), 4).layers
    assert [(name, layer.type) for name, layer in layers.items()] == [
        ("bend", "ReLU"),
        ("bend_1", "ReLU"),
        ("bend_1_1", "Tanh"),
        ("flatten", "flatten"),
        ("fc", "Linear"),
    ]


@pytest.mark.parametrize("architecture", ["torchlight", "guide"])
def test_every_layer_gives_what_the_chain_gives_step_by_step(architecture: str, make_network: MakeNetwork) -> None:
    network = make_network(architecture)
    images = normalised()
    with torch.inference_mode():
        outputs = NetworkGraph(network, 32).run(images, dict(network.named_children()))
        value = images
        for name, step in network.named_children():
            value = step(value)
            assert torch.equal(outputs[name], value), name


def test_layers_of_a_branching_network_are_all_there() -> None:
    graph = NetworkGraph(TwoBranches().eval(), 8)
    types = [layer.type for layer in graph.layers.values()]
    assert types == ["Conv2d", "ReLU", "mul", "add", "sub", "relu", "neg", "cat", "ReLU", "mean"]
    assert graph.layers["add"].inputs == ("mul", "relu")
    relus = [layer.name for layer in graph.layers.values() if layer.type == "ReLU"]
    assert [graph.layers[name].module is graph.layers[relus[0]].module for name in relus] == [True, True]
    assert [graph.layers[name].in_shapes for name in relus] == [((4, 8, 8),), ((8, 8, 8),)]


def test_layers_that_work_in_place_overwrite_no_captured_output() -> None:
    network = TwoBranches().eval()
    graph = NetworkGraph(network, 8)
    images = normalised(1, 8)
    with torch.inference_mode():
        outputs = graph.run(images, graph.layers)
        stem = network.conv(images)
        bent = stem.clamp(min=0)
        assert (stem < 0).any()
        torch.testing.assert_close(outputs["conv"], stem)
        torch.testing.assert_close(outputs["relu"], bent)
        torch.testing.assert_close(outputs["mul"], 2 * bent)
        torch.testing.assert_close(outputs["sub"], 3 * bent - 1)
        torch.testing.assert_close(outputs[graph.output], network(images))


def test_input_can_be_kept_like_a_layer(make_network: MakeNetwork) -> None:
    images = normalised()
    assert NetworkGraph(make_network(), 32).run(images, [INPUT])[INPUT] is images


def test_replaced_output_is_what_later_layers_read(make_network: MakeNetwork) -> None:
    network = make_network("guide")
    graph = NetworkGraph(network, 32)
    replacement = torch.randn(2, 32, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        outputs = graph.run(normalised(), ["relu1", "fc"], {"relu1": replacement})
        assert outputs["relu1"] is replacement
        assert torch.equal(outputs["fc"], network[2:](replacement))


def test_gradients_reach_a_replaced_output_and_no_parameter(make_network: MakeNetwork) -> None:
    network = make_network("guide").requires_grad_(False)
    graph = NetworkGraph(network, 32)
    with torch.no_grad():
        before = graph.run(normalised(1), ["relu4"])["relu4"]
    maps = before.clone().requires_grad_()
    logit = graph.run(normalised(1), ["fc"], {"relu4": maps})["fc"][0, 1]
    (gradient,) = torch.autograd.grad(logit, maps)
    (expected,) = torch.autograd.grad(network[8:](maps)[0, 1], maps)
    assert gradient.any()
    assert torch.equal(gradient, expected)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("keep", "replace"),
    [(["conv9"], {}), (["conv1"], {"conv9": torch.zeros(1)})],
    ids=["kept", "replaced"],
)
def test_unknown_layer_lists_the_names_there_are(
    keep: list[str], replace: dict[str, Tensor], make_network: MakeNetwork
) -> None:
    graph = NetworkGraph(make_network(), 32)
    with pytest.raises(UnknownLayer) as caught:
        graph.run(normalised(), keep, replace)
    assert "'conv9' does not exist" in str(caught.value)
    assert ", ".join(graph.layers) in str(caught.value)


@pytest.mark.parametrize("name", ["", "input", "Conv1", "conv1.weight"], ids=["empty", "input", "case", "weights"])
def test_only_layers_are_found(name: str, make_network: MakeNetwork) -> None:
    with pytest.raises(UnknownLayer, match="conv1, "):
        NetworkGraph(make_network(), 32).find_layer(name)


def test_graph_shares_the_weights_and_nothing_else(make_network: MakeNetwork) -> None:
    network = make_network("resnet18")
    graph = NetworkGraph(network, 32)
    found = graph.find_layer("layer1.0.conv1").module
    assert found is not network.layer1[0].conv1
    assert found.weight is network.layer1[0].conv1.weight
    assert network.relu.inplace


def test_graph_of_a_network_in_training_mode_leaves_its_mode_and_statistics(make_network: MakeNetwork) -> None:
    network = make_network("torchlight").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    NetworkGraph(network, 32).run(normalised(), ["fc"])
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("torchlight", "conv1"), ("lenet5", "conv1"), ("resnet18", "conv1"), ("mobilenet_v3_small", "features.0.0")],
)
def test_first_convolution_is_the_one_that_sees_the_image(
    architecture: str, name: str, make_network: MakeNetwork
) -> None:
    graph = NetworkGraph(make_network(architecture), 32)
    assert first_convolution_name(graph) == name
    assert graph.find_layer(name).inputs == (INPUT,)


def test_network_without_convolutions_has_no_first_one() -> None:
    graph = NetworkGraph(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), 8)
    with pytest.raises(ViewNotApplicable, match="no convolution"):
        first_convolution_name(graph)


class ChannelsLast(nn.Module):
    """Keeps maps as (H, W, C) between two permutations, and scales them by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(4), nn.Linear(4, 6)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.after = nn.Conv2d(6, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1)) * (self.scale + 1))
        return self.after(inside.permute(0, 3, 1, 2)).mean((2, 3))


def test_maps_that_are_channels_last_are_taken_and_given_channels_first() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ChannelsLast().eval()
    graph, images = NetworkGraph(network, 8), normalised(2, 8)
    layouts = {name: (layer.layout, layer.out_shape) for name, layer in graph.layers.items()}
    assert layouts["permute"] == layouts["norm"] == layouts["mul"] == ("channels last", (4, 8, 8))
    assert layouts["fc"] == ("channels last", (6, 8, 8))
    assert layouts["permute_1"] == ("channels first", (6, 8, 8))
    with torch.inference_mode():
        outputs = graph.run(images, ["conv", "permute", "norm", "fc", graph.output])
        assert torch.equal(outputs["permute"], outputs["conv"])
        assert torch.equal(outputs["norm"], network.norm(outputs["conv"].permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        assert torch.equal(outputs[graph.output], network(images))
        again = graph.run(torch.zeros_like(images), [graph.output], {"fc": outputs["fc"]})
        assert torch.equal(again[graph.output], network(images))


def test_gradient_reaches_maps_that_are_channels_last() -> None:
    graph = NetworkGraph(ChannelsLast().eval(), 8)
    outputs = graph.run(normalised(1, 8), ["fc", graph.output])
    (gradient,) = torch.autograd.grad(outputs[graph.output].sum(), outputs["fc"])
    assert gradient.shape == (1, 6, 8, 8)
    assert gradient.any()


def test_what_does_not_depend_on_the_image_is_no_layer() -> None:
    layers = NetworkGraph(ChannelsLast().eval(), 8).layers
    assert list(layers) == ["conv", "permute", "norm", "mul", "fc", "permute_1", "after", "mean"]
    assert layers["mul"].inputs == ("norm",)


@pytest.mark.parametrize(
    ("rearrange", "has_maps"),
    [
        (lambda maps: maps.permute(0, 3, 2, 1), False),
        (lambda maps: nn.functional.relu(maps.permute(0, 3, 2, 1)), False),
        (lambda maps: torch.permute(maps.permute(0, 2, 3, 1), (0, 3, 1, 2)), True),
        (lambda maps: maps.unflatten(1, (2, 2)).permute(0, 2, 1, 3, 4).reshape(-1, 4, 8, 8), False),
        (lambda maps: maps.unflatten(1, (2, 2)).transpose(1, 2).reshape(-1, 4, 8, 8), True),  # as ShuffleNet does
    ],
    ids=["columns first", "and on", "there and back", "blocks", "shuffled channels"],
)
def test_maps_are_told_from_axes_in_an_unknown_order(rearrange: Callable[[Tensor], Tensor], has_maps: bool) -> None:
    class Rearranged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.after = nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(rearrange(self.conv(x)))

    layers = NetworkGraph(Rearranged().eval(), 8).layers
    *_, rearranged, after = layers.values()
    assert len(rearranged.out_shape) == 3
    assert rearranged.has_maps is has_maps
    assert after.has_maps  # a pooling knows but one order


@pytest.mark.parametrize("architecture", ["convnext_tiny", "swin_t"])
def test_graph_of_a_channels_last_network_gives_its_own_logits(architecture: str, make_network: MakeNetwork) -> None:
    network, images = make_network(architecture), normalised(1, 64)
    graph = NetworkGraph(network, 64)
    kept = [name for name, layer in graph.layers.items() if layer.layout == "channels last"]
    with torch.inference_mode():
        assert torch.equal(graph.run(images, [*kept, graph.output])[graph.output], network(images))
    assert {graph.layers[name].type for name in kept} >= {"permute", "LayerNorm", "Linear", "GELU"}
