"""What the network sums up an image to, held against its own last layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.views.embedding import embed, embedding_layer, image_digest

MakeClassifier = Callable[..., Classifier]


@pytest.mark.parametrize(
    ("architecture", "size", "layer", "numbers"),
    [
        ("torchlight", 32, "flatten", 256),
        ("guide", 32, "flatten", 1024),
        ("lenet5", 32, "tanh4", 84),
        ("resnet18", 64, "flatten", 512),
        ("squeezenet1_1", 64, "classifier.0", 512),
        ("efficientnet_lite0", 64, "dropout", 1280),
        ("efficientnet_lite0_multilevel", 224, "dropout", 1280),  # not the maps of the earlier levels
    ],
)
def test_embedding_is_what_enters_the_last_layer(
    architecture: str,
    size: int,
    layer: str,
    numbers: int,
    make_classifier: MakeClassifier,
    noise_images: Callable[..., Tensor],
) -> None:
    classifier = make_classifier(architecture, size)
    embeddings = embed(classifier, noise_images(3, size))
    assert embedding_layer(classifier.graph) == layer
    assert embeddings.shape == (3, numbers)
    assert embeddings.dtype == torch.float32
    assert embeddings.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("architecture", ["torchlight", "guide"])
def test_last_layer_makes_the_logits_from_the_embedding_and_its_length(
    architecture: str, make_classifier: MakeClassifier, noise_images: Callable[..., Tensor]
) -> None:
    classifier, images = make_classifier(architecture), noise_images(5)
    head = classifier.network.get_submodule("fc")
    logits, embeddings = classifier.logits(images), embed(classifier, images)
    from_embedding = embeddings @ head.weight.T
    lengths = ((logits - head.bias) * from_embedding).sum(1) / from_embedding.square().sum(1)
    assert (lengths > 0).all()
    torch.testing.assert_close(lengths[:, None] * from_embedding + head.bias, logits, rtol=1e-4, atol=1e-5)


def test_batch_gives_the_same_embeddings_as_single_images(
    make_classifier: MakeClassifier, noise_images: Callable[..., Tensor]
) -> None:
    classifier, images = make_classifier(), noise_images(6)
    singly = torch.cat([embed(classifier, image[None]) for image in images])
    torch.testing.assert_close(embed(classifier, images), singly, rtol=0, atol=1e-6)


def test_digest_is_that_of_the_pixels_alone(noise_images: Callable[..., Tensor]) -> None:
    images = noise_images(2)
    laid_out_otherwise = images.contiguous(memory_format=torch.channels_last)[0]
    assert image_digest(images[0]) == image_digest(images[0].clone()) == image_digest(laid_out_otherwise)
    assert image_digest(images[0]) != image_digest(images[1])
    assert len(bytes.fromhex(image_digest(images[0]))) == 32
