"""Evidence maps are those of other implementations and of arithmetic, add up where they say so, and change nothing."""

import copy
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam, Saliency
from captum.attr import Occlusion as CaptumOcclusion
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.classifier import Classifier
from torchlight.model.errors import UnknownLayer, UnknownTarget, ViewNotApplicable
from torchlight.model.images import normalise
from torchlight.model.views import attribution
from torchlight.model.views.attribution import METHODS, occlude_once, occlusion, resolve_target
from torchlight.model.views.deconvnet import reconstruct

MakeClassifier = Callable[..., Classifier]
Make = Callable[..., Tensor]

# layer of the evidence on our names, and the module whose output it is on the network's own
CAM_LAYERS = [("torchlight", 32, "relu6", "relu6"), ("guide", 32, "pool2", "pool2"),
              ("resnet18", 64, "layer4.1.relu_1", "layer4.1")]  # fmt: skip
BACKBONE = ("efficientnet_lite0", 64, "head.relu", "head.relu")


@pytest.fixture(scope="module")
def classify(make_network: Callable[..., nn.Module], make_header: Callable[..., Header]) -> MakeClassifier:
    """Return a function that makes a classifier without a file."""
    made: dict[tuple[str, int], Classifier] = {}

    def make(architecture: str = "torchlight", size: int = 32) -> Classifier:
        if (architecture, size) not in made:
            header = make_header(architecture, size)
            checkpoint = Checkpoint(header, make_network(architecture), "sha256:test", Path("unsaved"))
            made[architecture, size] = Classifier(checkpoint, torch.device("cpu"))
        return made[architecture, size]

    return make


@pytest.fixture(scope="module")
def guide(classify: MakeClassifier) -> Classifier:
    return classify("guide")


@pytest.fixture(scope="module")
def image(noise_images: Make) -> Tensor:
    return noise_images(1)[0]


def reference(classifier: Classifier) -> nn.Module:
    """Return a network of its own for tools that hang hooks on it, with nothing done in place."""
    network = copy.deepcopy(classifier.network)
    for rectifier in [module for module in network.modules() if isinstance(module, nn.ReLU)]:
        rectifier.inplace = False
    return network


def normalised(classifier: Classifier, image: Tensor) -> Tensor:
    return normalise(image[None], classifier.spec).requires_grad_()


def assert_close_to_the_largest(actual: Tensor, expected: Tensor, share: float) -> None:
    """Compare within a share of the largest value, which must not be zero."""
    assert expected.any()
    torch.testing.assert_close(actual, expected.detach(), rtol=0, atol=share * expected.abs().max().item())


@pytest.mark.parametrize(("architecture", "size", "layer", "module"), [*CAM_LAYERS, BACKBONE])
def test_grad_cam_is_captums_on_the_layers_own_grid(
    architecture: str, size: int, layer: str, module: str, classify: MakeClassifier, noise_images: Make
) -> None:
    classifier, (image,) = classify(architecture, size), noise_images(1, size)
    network = reference(classifier)
    captum = LayerGradCam(network, network.get_submodule(module))
    for target in range(3):
        expected = captum.attribute(normalised(classifier, image), target, relu_attributions=False)[0, 0]
        found = attribution.grad_cam(classifier, image, target)
        assert found.layer == layer
        assert_close_to_the_largest(found.map, expected, 1e-5)


@pytest.mark.parametrize(("architecture", "size", "layer", "module"), CAM_LAYERS)
def test_grad_cam_enlarged_is_that_of_pytorch_grad_cam(
    architecture: str, size: int, layer: str, module: str, classify: MakeClassifier, noise_images: Make
) -> None:
    classifier, (image,) = classify(architecture, size), noise_images(1, size)
    network = reference(classifier)
    target = max(range(3), key=lambda target: attribution.grad_cam(classifier, image, target).map.relu().sum())
    positive = attribution.grad_cam(classifier, image, target, layer=layer).map.relu()
    enlarged = nn.functional.interpolate(positive[None, None], (size, size), mode="bilinear")[0, 0]
    with GradCAM(network, [network.get_submodule(module)]) as cam:
        expected = cam(normalised(classifier, image), [ClassifierOutputTarget(target)])[0]
    assert expected.max() > 0.9
    assert torch.corrcoef(torch.stack([enlarged.flatten(), torch.from_numpy(expected).flatten()]))[0, 1] >= 0.9999


@pytest.mark.parametrize(("architecture", "size", "layer", "_module"), [*CAM_LAYERS, BACKBONE])
def test_cells_and_bias_of_hires_cam_are_the_logit_where_the_head_is_linear(
    architecture: str, size: int, layer: str, _module: str, classify: MakeClassifier, noise_images: Make
) -> None:
    classifier, (image,) = classify(architecture, size), noise_images(1, size)
    logits = classifier.logits(image[None])[0]
    head = [module for module in classifier.network.modules() if isinstance(module, nn.Linear)][-1]
    for target in range(3):
        found = attribution.hires_cam(classifier, image, target)
        assert (found.layer, found.law) == (layer, "cells + bias = logit")
        assert found.bias == pytest.approx(head.bias[target].item(), abs=1e-6)
        assert found.logit == pytest.approx(logits[target].item(), abs=1e-5)
        assert abs(found.residual) <= 1e-4 * abs(found.logit)


def test_evidence_of_a_multilevel_head_is_that_of_all_maps_it_reads(
    classify: MakeClassifier, noise_images: Make
) -> None:
    classifier, (image,) = classify("efficientnet_lite0_multilevel", 224), noise_images(1, 224)
    names = ["block11.add", "block15.add", "head.relu"]
    maps = classifier.graph.run(normalise(image[None], classifier.spec), names)
    weights = classifier.network.fc.weight[1].detach().split([112 * 16, 192 * 16, 1280])
    shares = [weights[2][:, None].expand(-1, 49) / 49]  # (C, positions): what each adds for each of its map's numbers
    for weight, side, pool in ((weights[1], 7, (4, 1)), (weights[0], 14, (5, 3))):
        places = nn.functional.avg_pool2d(torch.eye(side**2).view(-1, 1, side, side), *pool).flatten(1)
        shares.insert(0, weight.view(-1, 16) @ places.T)  # (C, 16 means) (16, positions)
    cells = [(maps[name][0].flatten(1) * share).sum(0) for name, share in zip(names, shares, strict=True)]
    fine = cells[0].view(7, 2, 7, 2).sum((1, 3)).flatten()

    found = attribution.hires_cam(classifier, image, 1)

    assert found.layer == "head.relu"
    assert found.law == "cells + bias = logit; the cells hold the evidence of 'block11.add' and 'block15.add' too"
    assert found.bias == pytest.approx(classifier.network.fc.bias[1].item(), abs=1e-6)
    assert abs(found.residual) <= 1e-4 * abs(found.logit)
    assert_close_to_the_largest(found.map.flatten(), fine + cells[1] + cells[2], 1e-5)


def test_each_level_of_a_multilevel_head_has_its_share(classify: MakeClassifier, noise_images: Make) -> None:
    classifier, (image,) = classify("efficientnet_lite0_multilevel", 224), noise_images(1, 224)
    shares = [
        attribution.hires_cam(classifier, image, 1, layer=name) for name in ("level1.pool", "level2.pool", "head.relu")
    ]
    assert [share.map.shape for share in shares] == [(4, 4), (4, 4), (7, 7)]
    assert {share.law for share in shares} == {"cells + bias = logit; the bias has what is read beside this layer"}
    assert max(abs(share.residual) for share in shares) <= 1e-4 * abs(shares[0].logit)
    whole = attribution.hires_cam(classifier, image, 1)
    assert sum(share.sum for share in shares) == pytest.approx(whole.sum, rel=1e-4)
    assert attribution.hires_cam(classifier, image, 1, layer="block11.add").residual is None


@pytest.mark.parametrize(
    ("architecture", "layer", "inside"),
    [
        ("convnext_tiny", "features.7.2.add", "features.7.1.block.4"),
        ("swin_t", "permute.permute", "features.7.1.mlp.1"),
    ],
)
def test_maps_that_are_channels_last_are_explained_place_by_place(
    architecture: str, layer: str, inside: str, classify: MakeClassifier, noise_images: Make
) -> None:
    classifier, (image,) = classify(architecture, 64), noise_images(1, 64)
    for method in (attribution.grad_cam, attribution.hires_cam):
        found = method(classifier, image, 1)
        assert (found.layer, found.map.shape) == (layer, (2, 2))
    network, values = reference(classifier), {}
    network.get_submodule(inside).register_forward_hook(lambda *call: values.update(maps=call[-1]))
    logit = network(normalised(classifier, image))[0, 1]
    (gradient,) = torch.autograd.grad(logit, values["maps"])  # (1, H, W, C)
    expected = (gradient.mean((1, 2), keepdim=True) * values["maps"]).sum(3)[0]
    assert_close_to_the_largest(attribution.grad_cam(classifier, image, 1, layer=inside).map, expected, 1e-5)


def test_hires_cam_through_maximum_pooling_adds_up_too(guide: Classifier, image: Tensor) -> None:
    found = attribution.hires_cam(guide, image, 1, layer="relu4")
    assert found.map.shape == (8, 8)
    assert (found.map == 0).sum() < 64 - 16  # not one cell for each window: each channel has a maximum of its own
    assert abs(found.residual) <= 1e-4 * abs(found.logit)


def test_hires_cam_is_grad_cam_where_the_head_averages_and_not_elsewhere(
    classify: MakeClassifier, guide: Classifier, image: Tensor
) -> None:
    for_mean = [method(classify(), image, 0).map for method in (attribution.grad_cam, attribution.hires_cam)]
    flattened = [method(guide, image, 0).map for method in (attribution.grad_cam, attribution.hires_cam)]
    assert_close_to_the_largest(*for_mean, 1e-5)
    assert (flattened[0] - flattened[1]).abs().max() > 0.1 * flattened[1].abs().max()


@pytest.mark.parametrize(
    ("architecture", "layer", "word"),
    [("torchlight", "relu5", "'conv6' (Conv2d)"), ("lenet5", "tanh2", "'conv3' (Conv2d)")],
)
def test_hires_cam_claims_no_sum_where_the_rest_is_not_linear(
    architecture: str, layer: str, word: str, classify: MakeClassifier, image: Tensor
) -> None:
    found = attribution.hires_cam(classify(architecture), image, 0, layer=layer)
    assert found.residual is None
    assert found.bias is None
    assert word in found.law


def test_evidence_that_is_all_negative_stays_as_it_is(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], image: Tensor
) -> None:
    network = make_network("torchlight")
    network.fc.weight.data[0] = -network.fc.weight[0].abs()
    classifier = Classifier(Checkpoint(make_header(), network, "sha256:test", Path("unsaved")), torch.device("cpu"))
    found = attribution.grad_cam(classifier, image, 0)
    assert found.map.max() < 0
    assert found.sum == pytest.approx(found.logit - network.fc.bias[0].item(), rel=1e-4)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"saliency"}))
def test_contrast_explains_the_difference_of_two_logits(method: str, guide: Classifier, image: Tensor) -> None:
    logits = guide.logits(image[None])[0]
    first, second, contrast = (METHODS[method](guide, image, *pair) for pair in [(2,), (0,), (2, 0)])
    assert (contrast.target, contrast.target_vs) == (2, 0)
    assert contrast.logit == pytest.approx((logits[2] - logits[0]).item(), abs=1e-5)
    share = 0.05 if method == "integrated_gradients" else 1e-4  # which takes its steps where each logit bends
    assert_close_to_the_largest(contrast.map, first.map - second.map, share)


@pytest.mark.parametrize("architecture", ["torchlight", "guide", "lenet5"])
def test_saliency_and_its_product_with_the_input_are_captums(
    architecture: str, classify: MakeClassifier, image: Tensor
) -> None:
    classifier = classify(architecture)
    network = reference(classifier)
    gradient = Saliency(network).attribute(normalised(classifier, image), 1)[0]
    product = InputXGradient(network).attribute(normalised(classifier, image), 1)[0]
    assert_close_to_the_largest(attribution.saliency(classifier, image, 1).map, gradient.amax(0), 1e-6)
    assert_close_to_the_largest(attribution.input_x_gradient(classifier, image, 1).map, product.sum(0), 2e-6)


@pytest.mark.parametrize("architecture", ["torchlight", "guide", "lenet5"])
def test_saliency_is_how_much_a_small_change_of_a_pixel_changes_the_logit(
    architecture: str, classify: MakeClassifier, image: Tensor
) -> None:
    classifier = classify(architecture)
    network = reference(classifier).double()
    found = attribution.saliency(classifier, image, 2).map
    changes = torch.zeros(20, 3, 3, 32, 32, dtype=torch.float64)
    places = [divmod(place, 32) for place in random.Random(0).sample(range(32 * 32), 20)]
    for number, (y, x) in enumerate(places):
        changes[number, range(3), range(3), y, x] = 1e-6
    pixels = normalised(classifier, image).double()
    with torch.inference_mode():
        above, below = (network(pixels + sign * changes.flatten(0, 1))[:, 2] for sign in (1, -1))
    slopes = ((above - below) / 2e-6).view(20, 3).abs().amax(1)
    assert_close_to_the_largest(torch.stack([found[place] for place in places]).double(), slopes, 0.01)


@pytest.mark.parametrize(("architecture", "size"), [("torchlight", 32), ("guide", 32), ("resnet18", 64)])
def test_integrated_gradients_add_up_to_the_logit(
    architecture: str, size: int, classify: MakeClassifier, noise_images: Make
) -> None:
    classifier, (image,) = classify(architecture, size), noise_images(1, size)
    found = attribution.integrated_gradients(classifier, image, 1)
    with torch.inference_mode():
        bias = classifier.network(torch.zeros(1, 3, size, size))[0, 1].item()
    assert found.bias == pytest.approx(bias, abs=1e-5)
    assert abs(found.residual) <= 0.01 * found.map.abs().sum()
    assert "64 steps" in found.law


def test_more_steps_leave_less_of_a_residual(guide: Classifier, image: Tensor) -> None:
    few, many = (attribution.integrated_gradients(guide, image, 1, n_steps=number) for number in (2, 128))
    assert abs(many.residual) < abs(few.residual) / 4


@pytest.mark.parametrize("architecture", ["torchlight", "guide", "lenet5"])
def test_integrated_gradients_are_captums(architecture: str, classify: MakeClassifier, image: Tensor) -> None:
    classifier = classify(architecture)
    captum = IntegratedGradients(reference(classifier))
    expected = captum.attribute(normalised(classifier, image), target=1, n_steps=200, method="riemann_middle")[0]
    found = attribution.integrated_gradients(classifier, image, 1, n_steps=100)  # elsewhere on the same way
    assert_close_to_the_largest(found.map, expected.sum(0).float(), 0.05)


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (8, 8), (7, 3), (5, 5), (32, 32)])
def test_occlusion_is_captums(window: int, stride: int, guide: Classifier, image: Tensor) -> None:
    network, pixels = reference(guide), normalised(guide, image).detach()
    shape = {"sliding_window_shapes": (3, window, window), "strides": (3, stride, stride)}
    found = occlusion(guide, image, 1, window=window, stride=stride)
    logit = CaptumOcclusion(network).attribute(pixels, target=1, **shape)[0, 0]
    probability = CaptumOcclusion(lambda images: network(images).softmax(1)).attribute(pixels, target=1, **shape)[0, 0]
    assert (found.window, found.stride) == (window, stride)
    assert_close_to_the_largest(found.map, logit.float(), 1e-5)
    assert_close_to_the_largest(found.probability_map, probability.float(), 1e-5)


def test_occlusion_by_default_takes_169_windows_of_a_quarter_of_the_side(guide: Classifier, image: Tensor) -> None:
    found = occlusion(guide, image, 0)
    assert (found.window, found.stride, found.labels.shape, found.map.shape) == (8, 2, (13, 13), (32, 32))


def test_each_window_of_an_occlusion_is_the_same_square_alone(guide: Classifier, image: Tensor) -> None:
    grey = (90, 120, 30)
    found = occlusion(guide, image, 1, window=10, stride=10, baseline=grey)
    before = guide.probabilities(image[None])[0]
    places = [(row, column) for row in range(4) for column in range(4)]
    after = torch.stack([occlude_once(guide, image, 10 * row, 10 * column, 10, grey) for row, column in places])
    assert torch.equal(found.labels, after.argmax(1).view(4, 4))
    drops = (before - after)[:, 1].view(4, 4).repeat_interleave(10, 0).repeat_interleave(10, 1)[:32, :32]
    torch.testing.assert_close(found.probability_map, drops, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("y", "x", "covered"),
    [(4, 7, (slice(4, 10), slice(7, 13))), (-3, 30, (slice(0, 3), slice(30, 32))), (40, 0, (slice(0, 0), slice(0, 6)))],
    ids=["inside", "over the edge", "outside"],
)
def test_probabilities_with_a_square_are_those_of_the_painted_image(
    y: int, x: int, covered: tuple[slice, slice], guide: Classifier, image: Tensor
) -> None:
    painted = image.clone()
    painted[:, *covered] = torch.tensor([10, 200, 128], dtype=torch.uint8)[:, None, None]
    found = occlude_once(guide, image, y, x, 6, (10, 200, 128))
    torch.testing.assert_close(found, guide.probabilities(painted[None])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window is 0 pixels; take 1 to 32"),
        ({"window": 33}, "window is 33 pixels; take 1 to 32"),
        ({"window": 8, "stride": 0}, "stride is 0 pixels; take 1 to 8"),
        ({"window": 8, "stride": 9}, "stride is 9 pixels; take 1 to 8"),
    ],
)
def test_windows_that_cannot_slide_say_why(
    options: dict[str, int], words: str, guide: Classifier, image: Tensor
) -> None:
    with pytest.raises(ViewNotApplicable, match=words):
        occlusion(guide, image, 0, **options)


def test_too_many_windows_are_refused_before_any_is_computed(classify: MakeClassifier, noise_images: Make) -> None:
    with pytest.raises(ViewNotApplicable, match="3249 windows are more than 1024; take a longer stride"):
        occlusion(classify("resnet18", 64), noise_images(1, 64)[0], 0, window=8, stride=1)


@pytest.mark.parametrize("number", [0, -1, 1025])
def test_number_of_steps_is_bounded(number: int, guide: Classifier, image: Tensor) -> None:
    with pytest.raises(ViewNotApplicable, match=f"n_steps is {number}; take 1 to 1024"):
        attribution.integrated_gradients(guide, image, 0, n_steps=number)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("target", "target_vs"), [(3, None), (-1, None), (0, 3)])
def test_classes_that_do_not_exist_are_refused(
    method: str, target: int, target_vs: int | None, guide: Classifier, image: Tensor
) -> None:
    with pytest.raises(UnknownTarget, match="is not a class; name one of cat, dog, owl, or an index from 0 to 2"):
        METHODS[method](guide, image, target, target_vs)


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_class_activation_maps_need_a_layer_of_maps(method: str, guide: Classifier, image: Tensor) -> None:
    with pytest.raises(ViewNotApplicable, match="layer 'flatten' gives 1024 numbers, not maps"):
        METHODS[method](guide, image, 0, layer="flatten")
    with pytest.raises(UnknownLayer, match="'conv9' does not exist"):
        METHODS[method](guide, image, 0, layer="conv9")


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_maps_of_one_position_are_no_place(method: str, classify: MakeClassifier, image: Tensor) -> None:
    with pytest.raises(ViewNotApplicable, match="layer 'global_pool' gives maps of one position, which is nowhere"):
        METHODS[method](classify("torchlight", 32), image, 0, layer="global_pool")


@pytest.mark.parametrize(
    ("text", "index"), [("dog", 1), ("0", 0), ("2", 2), (None, 2)], ids=["name", "first", "last", "none"]
)
def test_target_is_a_name_or_an_index_or_the_most_probable_class(
    text: str | None, index: int, guide: Classifier
) -> None:
    assert resolve_target(guide, text, torch.tensor([0.2, 0.3, 0.5])) == index


def test_name_that_looks_like_an_index_is_a_name(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header]
) -> None:
    header = make_header("guide", class_names=("2", "1", "owl"))
    digits = Classifier(Checkpoint(header, make_network("guide"), "sha256:test", Path("x")), torch.device("cpu"))
    assert [resolve_target(digits, text, torch.ones(3)) for text in ("2", "1", "0")] == [0, 1, 0]


@pytest.mark.parametrize("text", ["Cat", "3", "-1", "01", "", "²", "9" * 5000], ids=lambda text: text[:3])
def test_unknown_target_lists_the_names_there_are(text: str, guide: Classifier) -> None:
    with pytest.raises(UnknownTarget, match="name one of cat, dog, owl, or an index from 0 to 2"):
        resolve_target(guide, text, torch.ones(3))


@pytest.mark.parametrize(
    ("architecture", "size", "layer", "deconvnet"),
    [
        ("torchlight", 32, "relu6", nullcontext()),
        ("guide", 32, "pool2", nullcontext()),
        ("lenet5", 32, "pool2", pytest.raises(ViewNotApplicable, match="'tanh4', of type Tanh, has no way down")),
        ("resnet18", 64, "layer4.1.relu_1", nullcontext()),
        ("resnet18", 32, "layer3.1.relu_1", nullcontext()),
        ("mobilenet_v3_small", 64, "features.12.2", pytest.raises(ViewNotApplicable, match="of type Hardswish")),
        ("vgg11_bn", 64, "features.28", nullcontext()),
        ("densenet121", 64, "relu", nullcontext()),
    ],
)
def test_every_view_works_or_says_why_not(
    architecture: str,
    size: int,
    layer: str,
    deconvnet: AbstractContextManager[object],
    classify: MakeClassifier,
    noise_images: Make,
) -> None:
    classifier, (image,) = classify(architecture, size), noise_images(1, size)
    options = {"integrated_gradients": {"n_steps": 1}, "occlusion": {"window": size, "stride": size}}
    found = {name: method(classifier, image, 1, **options.get(name, {})) for name, method in METHODS.items()}
    logit = classifier.logits(image[None])[0, 1].item()
    for name, one in found.items():
        assert one.map.dtype == torch.float32
        assert one.map.isfinite().all()
        hardly_depends = architecture == "mobilenet_v3_small"  # on the image: its weights are random, and it is deep
        assert one.map.any() or (hardly_depends and name == "occlusion")
        assert one.logit == pytest.approx(logit, rel=1e-4, abs=1e-5)
    layers = {name: one.layer for name, one in found.items()}
    assert layers == dict.fromkeys(METHODS, "input") | dict.fromkeys(("grad_cam", "hires_cam"), layer)
    with deconvnet:
        assert reconstruct(classifier, image, classifier.graph.output, 1).pixels.any()


def test_network_without_maps_has_no_class_activation_map(make_header: Callable[..., Header], image: Tensor) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    classifier = Classifier(Checkpoint(make_header(), network, "sha256:test", Path("x")), torch.device("cpu"))
    with pytest.raises(ViewNotApplicable, match="no layer of this network gives maps"):
        attribution.grad_cam(classifier, image, 0)


VIEWS: list[Callable[[Classifier, Tensor], Tensor]] = [
    lambda classifier, image: attribution.grad_cam(classifier, image, 0).map,
    lambda classifier, image: attribution.hires_cam(classifier, image, 1).map,
    lambda classifier, image: attribution.saliency(classifier, image, 2).map,
    lambda classifier, image: attribution.integrated_gradients(classifier, image, 0, n_steps=4).map,
    lambda classifier, image: occlusion(classifier, image, 1, window=16, stride=16).map,
    lambda classifier, image: occlude_once(classifier, image, 3, 4, 9),
    lambda classifier, image: reconstruct(classifier, image, "layer2.0.relu", 3).pixels,
    lambda classifier, image: classifier.probabilities(image[None])[0],
]


def test_eight_threads_at_once_see_what_one_sees_after_the_other(classify: MakeClassifier, noise_images: Make) -> None:
    classifier = classify("resnet18")
    tasks = [(view, image) for image in noise_images(3) for view in VIEWS]
    alone = [view(classifier, image) for view, image in tasks]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda task: task[0](classifier, task[1]), tasks))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def test_views_leave_the_network_and_its_answers_as_they_were(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], noise_images: Make
) -> None:
    network = make_network("resnet18")  # its parameters may have gradients, and still get none
    classifier = Classifier(Checkpoint(make_header("resnet18"), network, "x", Path("x")), torch.device("cpu"))
    images = noise_images(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits, copied = classifier.logits(images), images.clone()

    for view in VIEWS:
        view(classifier, images[0])
    with pytest.raises(UnknownLayer):
        attribution.grad_cam(classifier, images[0], 0, layer="nothing")

    assert torch.equal(classifier.logits(images), logits)
    assert torch.equal(images, copied)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks or module.training for module in network.modules())
