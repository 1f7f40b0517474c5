"""Filters as trained, on raw pixels and with batch norm folded in: each computes what the network computes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.errors import UnknownLayer, ViewNotApplicable
from torchlight.model.views.activations import activation_maps
from torchlight.model.views.filters import filters


@pytest.fixture(scope="module")
def classifier(make_classifier: Callable[..., Classifier]) -> Classifier:
    return make_classifier("torchlight")


def test_filters_are_the_weights_of_the_network_that_answers(classifier: Classifier) -> None:
    bank = filters(classifier, "conv1")
    assert bank.weights.shape == (64, 3, 5, 5)
    assert torch.equal(bank.weights, classifier.network.conv1.weight)
    assert torch.equal(bank.bias, classifier.network.conv1.bias)


def test_convolution_without_bias_has_zeros(classifier: Classifier) -> None:
    assert torch.equal(filters(classifier, "conv2").bias, torch.zeros(128))


def test_filters_in_pixel_space_give_the_same_maps_from_raw_pixels(
    classifier: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    (image,) = noise_images(1)
    bank = filters(classifier, "conv1", space="pixel")
    maps = F.conv2d(image[None].float() / 255, bank.weights, bank.bias)[0]
    torch.testing.assert_close(maps, activation_maps(classifier, image, "conv1"), atol=1e-4, rtol=1e-4)


def test_filters_of_the_backbone_in_pixel_space_see_the_image_through_its_layer_of_zeros(
    make_classifier: Callable[..., Classifier], noise_images: Callable[..., Tensor]
) -> None:
    classifier, (image,) = make_classifier("efficientnet_lite0", 64), noise_images(1, 64)
    bank = filters(classifier, "stem.conv", space="pixel")
    maps = F.conv2d(image[None].float() / 255, bank.weights, bank.bias, stride=2)[0]
    inside = activation_maps(classifier, image, "stem.conv")[:, :-1, :-1]  # zeros are below and right only
    torch.testing.assert_close(maps, inside, atol=1e-4, rtol=1e-4)
    assert filters(classifier, "block2.depthwise").weights.shape == (96, 1, 3, 3)


@pytest.mark.parametrize(
    ("layer", "before", "after", "padding"), [("conv2", "pool1", "bn2", 1), ("conv5", "relu4", "bn5", 1)]
)
def test_folded_filters_give_the_maps_after_batch_norm(
    layer: str,
    before: str,
    after: str,
    padding: int,
    classifier: Classifier,
    noise_images: Callable[..., Tensor],
) -> None:
    (image,) = noise_images(1)
    bank = filters(classifier, layer, folded=True)
    entering = activation_maps(classifier, image, before)
    maps = F.conv2d(entering[None], bank.weights, bank.bias, padding=padding)[0]
    torch.testing.assert_close(maps, activation_maps(classifier, image, after), atol=1e-4, rtol=1e-4)


def test_folding_and_pixel_space_go_together(classifier: Classifier, noise_images: Callable[..., Tensor]) -> None:
    (image,) = noise_images(1)
    bank = filters(classifier, "conv1", space="pixel", folded=True)
    maps = F.conv2d(image[None].float() / 255, bank.weights, bank.bias)[0]
    torch.testing.assert_close(maps, activation_maps(classifier, image, "bn1"), atol=1e-4, rtol=1e-4)


def test_asking_for_filters_leaves_the_network_alone(classifier: Classifier) -> None:
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    bank = filters(classifier, "conv1")
    bank.weights.zero_()
    bank.bias.zero_()
    assert all(torch.equal(before[name], value) for name, value in classifier.network.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "options", "words"),
    [
        ("relu1", {}, "'relu1' is of type ReLU; only convolutions"),
        ("fc", {}, "'fc' is of type Linear; only convolutions"),
        ("conv2", {"space": "pixel"}, "'conv2' does not read the image"),
    ],
    ids=["ReLU", "fully connected", "pixel space of a deep layer"],
)
def test_filters_that_do_not_exist_say_why(
    layer: str, options: dict[str, object], words: str, classifier: Classifier
) -> None:
    with pytest.raises(ViewNotApplicable, match=words):
        filters(classifier, layer, **options)


def test_convolution_without_batch_norm_cannot_be_folded(make_classifier: Callable[..., Classifier]) -> None:
    with pytest.raises(ViewNotApplicable, match="'conv1' is not followed by batch norm"):
        filters(make_classifier("guide"), "conv1", folded=True)


def test_unknown_layer_lists_the_names_there_are(classifier: Classifier) -> None:
    with pytest.raises(UnknownLayer, match="'conv0' does not exist; this network has conv1, bn1"):
        filters(classifier, "conv0")
