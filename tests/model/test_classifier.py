"""The laws of an answer: it belongs to its image alone, and it is a distribution over the labels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.classifier import Classifier, Prediction, choose_device
from torchlight.model.images import normalise

ARCHITECTURES = ("torchlight", "guide", "lenet5")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def classifier(request: pytest.FixtureRequest, make_classifier: Callable[..., Classifier]) -> Classifier:
    return make_classifier(request.param)


@pytest.mark.parametrize("number", [2, 7, 32])
def test_batch_gives_same_probabilities_as_single_images(
    number: int, classifier: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    images = noise_images(number)
    together = classifier.probabilities(images)
    alone = torch.cat([classifier.probabilities(image[None]) for image in images])
    assert (together - alone).abs().max() <= 1e-5
    assert (together[0] - together[1]).abs().max() > 1e-4  # the images differ, so the law is not empty


def test_permuting_a_batch_permutes_the_answer(classifier: Classifier, noise_images: Callable[..., Tensor]) -> None:
    images = noise_images(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    expected = classifier.probabilities(images)[order]
    assert (classifier.probabilities(images[order]) - expected).abs().max() <= 1e-5


def test_probabilities_are_a_distribution(classifier: Classifier, noise_images: Callable[..., Tensor]) -> None:
    probabilities = classifier.probabilities(noise_images(5))
    assert (probabilities.shape, probabilities.dtype) == ((5, 3), torch.float32)
    assert (probabilities >= 0).all()
    assert (probabilities.sum(1) - 1).abs().max() <= 1e-6


def test_probabilities_are_softmax_of_the_logits_once(
    classifier: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    images = noise_images(3)
    exponentials = classifier.logits(images).double().exp()
    expected = exponentials / exponentials.sum(1, keepdim=True)
    torch.testing.assert_close(classifier.probabilities(images).double(), expected, atol=1e-6, rtol=0)


def test_logits_are_those_of_the_plain_network_on_normalised_images(
    classifier: Classifier, noise_images: Callable[..., Tensor]
) -> None:
    images = noise_images(4)
    with torch.inference_mode():
        expected = classifier.network(normalise(images, classifier.spec))
    torch.testing.assert_close(classifier.logits(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("device", "rounds"), [("cuda", False), ("cpu", True)])
def test_convolutions_on_cuda_are_not_rounded_to_tf32(
    device: str, rounds: bool, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)  # the machine may have no GPU
    Classifier(classifier.checkpoint, torch.device(device))
    assert torch.backends.cudnn.allow_tf32 == rounds


def test_answering_twice_gives_the_same_bits(classifier: Classifier, noise_images: Callable[..., Tensor]) -> None:
    images = noise_images(2)
    assert torch.equal(classifier.logits(images), classifier.logits(images))


def test_extreme_images_have_finite_probabilities(classifier: Classifier) -> None:
    images = torch.stack([torch.zeros(3, 32, 32, dtype=torch.uint8), torch.full((3, 32, 32), 255, dtype=torch.uint8)])
    assert (classifier.probabilities(images).sum(1) - 1).abs().max() <= 1e-6


@pytest.fixture(scope="module")
def lenet(make_classifier: Callable[..., Classifier]) -> Classifier:
    return make_classifier("lenet5")


@pytest.mark.parametrize(
    ("k", "labels"),
    [
        (1, ["owl"]),
        (2, ["owl", "cat"]),
        (3, ["owl", "cat", "dog"]),
        (99, ["owl", "cat", "dog"]),
        (None, ["owl", "cat", "dog"]),
    ],
    ids=["one", "two", "all", "more than there are", "not said"],
)
def test_top_k_gives_the_most_probable_first(k: int | None, labels: list[str], lenet: Classifier) -> None:
    predictions = lenet.top_k(torch.tensor([0.25, 0.125, 0.625]), k)
    assert [one.label for one in predictions] == labels
    assert predictions[0] == Prediction("owl", 2, 0.625)


def test_equally_probable_labels_keep_the_order_of_the_classes(lenet: Classifier) -> None:
    assert [one.index for one in lenet.top_k(torch.full((3,), 1 / 3))] == [0, 1, 2]


def test_classifier_knows_what_its_file_says(lenet: Classifier) -> None:
    assert lenet.class_names == ("cat", "dog", "owl")
    assert lenet.spec.size == 32
    assert lenet.digest.startswith("sha256:")


def test_chosen_device_is_the_one_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
    ids=["both", "CUDA", "MPS", "neither"],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == torch.device(expected)
