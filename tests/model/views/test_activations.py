"""Maps are those of the network that answers, and looking at them changes nothing of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchlight.model.classifier import Classifier
from torchlight.model.errors import UnknownLayer, ViewNotApplicable
from torchlight.model.graph import NetworkGraph
from torchlight.model.images import normalise
from torchlight.model.views.activations import activation_maps, layer_at_stage, statistics

MakeClassifier = Callable[..., Classifier]


@pytest.fixture(scope="module")
def torchlight(make_classifier: MakeClassifier) -> Classifier:
    return make_classifier("torchlight")


@pytest.fixture(scope="module")
def resnet(make_classifier: MakeClassifier) -> Classifier:
    """A network whose ReLUs overwrite their inputs and whose blocks add."""
    return make_classifier("resnet18")


@pytest.mark.parametrize("architecture", ["torchlight", "guide", "lenet5"])
def test_maps_equal_a_forward_pass_made_by_hand(
    architecture: str, make_classifier: MakeClassifier, noise_images: Callable[..., Tensor]
) -> None:
    classifier = make_classifier(architecture)
    (image,) = noise_images(1)
    steps = list(takewhile(lambda item: item[0] != "flatten", classifier.network.named_children()))
    value = normalise(image[None], classifier.spec)
    for name, step in steps:
        with torch.inference_mode():
            value = step(value)
        torch.testing.assert_close(activation_maps(classifier, image, name), value[0], atol=1e-5, rtol=1e-5)
    assert len(steps) >= 8


def test_first_maps_of_the_default_network_are_64_of_28x28(
    torchlight: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    maps = activation_maps(torchlight, noise_images(1)[0], "conv1")
    assert (maps.shape, maps.dtype, maps.device.type) == ((64, 28, 28), torch.float32, "cpu")
    assert maps.is_contiguous()


def test_maps_belong_to_their_image(torchlight: Classifier, noise_images: Callable[..., Tensor]) -> None:
    first, second = noise_images(2)
    assert not torch.equal(activation_maps(torchlight, first, "relu3"), activation_maps(torchlight, second, "relu3"))


def test_capturing_leaves_no_trace_on_the_served_network(
    torchlight: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    images = noise_images(3)
    parameters = {name: value.clone() for name, value in torchlight.network.state_dict().items()}
    modules = list(torchlight.network.modules())
    logits = torchlight.logits(images)

    for layer in ("conv1", "bn3", "relu6", "pool1"):
        activation_maps(torchlight, images[0], layer)
    with pytest.raises(UnknownLayer):
        activation_maps(torchlight, images[0], "conv7")

    assert list(torchlight.network.modules()) == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert not any(module.training for module in modules)
    assert not any(p.requires_grad or p.grad is not None for p in torchlight.network.parameters())
    assert all(torch.equal(parameters[name], value) for name, value in torchlight.network.state_dict().items())
    assert torch.equal(torchlight.logits(images), logits)


@pytest.mark.parametrize("fixture", ["torchlight", "resnet"])
def test_captures_in_four_threads_equal_serial_ones_and_predictions_do_not_notice(
    fixture: str, request: pytest.FixtureRequest, noise_images: Callable[..., Tensor]
) -> None:
    classifier: Classifier = request.getfixturevalue(fixture)
    images = noise_images(4)
    jobs = [(index, layer) for index in range(4) for layer in ("conv1", "bn1")] * 2
    serial = {job: activation_maps(classifier, images[job[0]], job[1]) for job in set(jobs)}
    logits = classifier.logits(images)

    with ThreadPoolExecutor(4) as pool:
        maps = [pool.submit(activation_maps, classifier, images[index], layer) for index, layer in jobs]
        meanwhile = [classifier.logits(images) for _ in range(4)]

    assert all(torch.equal(found.result(), serial[job]) for found, job in zip(maps, jobs, strict=True))
    assert all(torch.equal(one, logits) for one in meanwhile)
    assert torch.equal(classifier.logits(images), logits)


def test_first_captures_may_come_all_at_once(
    make_classifier: MakeClassifier, noise_images: Callable[..., Tensor]
) -> None:
    classifier = make_classifier("lenet5")
    (image,) = noise_images(1)
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda _: activation_maps(classifier, image, "conv1"), range(8)))
    assert all(torch.equal(maps[0], other) for other in maps)


def test_relu_in_place_does_not_overwrite_the_map_before_it(
    resnet: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    (image,) = noise_images(1)
    network = resnet.network
    with torch.inference_mode():
        expected = network.bn1(network.conv1(normalise(image[None], resnet.spec)))[0]
    maps = activation_maps(resnet, image, "bn1")
    assert network.relu.inplace
    assert (maps < 0).any()
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-5)


def test_sums_and_repeated_modules_have_maps_too(resnet: Classifier, noise_images: Callable[..., Tensor]) -> None:
    (image,) = noise_images(1)
    block = resnet.network.layer1[0]
    entering = activation_maps(resnet, image, "maxpool")
    with torch.inference_mode():
        branch = block.bn2(block.conv2(block.bn1(block.conv1(entering[None])).relu()))
        total = (branch + entering)[0]
    torch.testing.assert_close(activation_maps(resnet, image, "layer1.0.add"), total, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(activation_maps(resnet, image, "layer1.0.relu_1"), total.relu(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", ["conv7", "Conv1", "", "conv1.weight"], ids=["number", "case", "empty", "weights"])
def test_unknown_layer_lists_the_names_there_are(
    layer: str, torchlight: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    with pytest.raises(UnknownLayer) as caught:
        activation_maps(torchlight, noise_images(1)[0], layer)
    assert f"layer {layer!r} does not exist; this network has conv1, bn1, relu1, pool1," in str(caught.value)


@pytest.mark.parametrize(("layer", "size"), [("fc", "3"), ("flatten", "256")])
def test_layer_without_maps_says_what_it_gives(
    layer: str, size: str, torchlight: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    with pytest.raises(ViewNotApplicable, match=rf"'{layer}' gives {size} numbers, not maps"):
        activation_maps(torchlight, noise_images(1)[0], layer)


@pytest.mark.parametrize(
    ("layer", "stage", "expected"),
    [
        ("conv1", "output", "conv1"),
        ("conv1", "pre_activation", "bn1"),
        ("conv1", "post_activation", "relu1"),
        ("bn1", "pre_activation", "bn1"),
        ("bn1", "post_activation", "relu1"),
        ("relu1", "output", "relu1"),
        ("relu1", "pre_activation", "bn1"),
        ("relu1", "post_activation", "relu1"),
    ],
)
def test_stage_names_the_values_before_and_after_the_activation_function(
    layer: str, stage: str, expected: str, torchlight: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    (image,) = noise_images(1)
    assert layer_at_stage(torchlight.graph, layer, stage).name == expected
    assert torch.equal(activation_maps(torchlight, image, layer, stage), activation_maps(torchlight, image, expected))


class Activated(nn.Module):
    """A convolution, a norm and an activation function, as a module or called."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.activation = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), activation

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(images)))


@pytest.mark.parametrize(
    "activation",
    [*(F.relu, F.gelu, F.silu, F.hardswish, torch.tanh, torch.sigmoid), *(nn.PReLU(), nn.Mish(), nn.SELU(), nn.GELU())],
    ids=lambda activation: getattr(activation, "__name__", type(activation).__name__),
)
def test_every_activation_function_makes_a_stage(activation: Callable[[Tensor], Tensor]) -> None:
    graph = NetworkGraph(Activated(activation).eval(), 8)
    assert layer_at_stage(graph, "conv", "pre_activation").name == "norm"
    assert layer_at_stage(graph, "conv", "post_activation").name == graph.output != "norm"


@pytest.mark.parametrize("layer", ["pool1", "global_pool"])
@pytest.mark.parametrize("stage", ["pre_activation", "post_activation"])
def test_layer_that_no_activation_function_follows_has_no_such_stage(
    layer: str, stage: str, torchlight: Classifier
) -> None:
    with pytest.raises(ViewNotApplicable, match="ask for stage=output"):
        layer_at_stage(torchlight.graph, layer, stage)


def test_statistics_are_those_of_each_map() -> None:
    maps = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[-2.0, -2.0], [-2.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mixed, constant, dead = statistics(maps)
    assert (mixed.channel, mixed.min, mixed.max, mixed.mean, mixed.zero_share, mixed.flag) == (0, 0, 3, 1, 0.5, "")
    assert mixed.std == pytest.approx(1.5**0.5)
    assert (constant.channel, constant.mean, constant.std, constant.flag) == (1, -2, 0, "constant")
    assert (dead.channel, dead.zero_share, dead.flag) == (2, 1, "all zero")


@pytest.mark.parametrize(
    ("values", "mean"), [([float("nan"), 2.0, 4.0], 3.0), ([float("inf")] * 3, 0.0)], ids=["one", "all"]
)
def test_statistics_leave_out_what_is_not_finite_and_say_so(values: list[float], mean: float) -> None:
    (found,) = statistics(torch.tensor([[values]]))
    assert (found.mean, found.flag) == (mean, "not finite")
