"""A trained network judges photos: its own answers, of the source's classes alone."""

from pathlib import Path

import pytest
import torch

from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.classifier import Classifier
from torchlight.model.errors import DataError
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.views.embedding import embed
from torchlight.training.data.loading import LabelledImages
from torchlight.training.data.source_photos import SourcePhotos
from torchlight.training.transfer.checkpoint_judge import judge_photos, match_classes

KNOWN = ("ant", "bee", "cow", "dog")


@pytest.fixture(params=["guide", "torchlight"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(NetworkConfig(request.param, len(KNOWN))).eval()
    spec = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    header = Header(NetworkConfig(request.param, len(KNOWN)), KNOWN, spec, {}, {}, {}, {})
    return Classifier(Checkpoint(header, network, "sha256:c0ffee", Path("pets.safetensors")), torch.device("cpu"))


def test_answers_are_the_networks_own_in_the_order_of_the_source(classifier: Classifier) -> None:
    images = torch.randint(0, 256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    source = SourcePhotos(("dog", "bee"), LabelledImages(images, torch.arange(12) % 2))
    told: list[tuple[int, int]] = []
    judged = judge_photos(classifier, source, lambda done, total: told.append((done, total)))
    logits = classifier.logits(images)
    torch.testing.assert_close(judged.logits, logits[:, [3, 1]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(judged.features, embed(classifier, images), atol=1e-4, rtol=1e-3)
    assert list(judged.strange) == [k for k, best in enumerate(logits.argmax(1).tolist()) if best in (0, 2)]
    assert told[-1] == (12, 12)


def test_classes_that_do_not_match_are_listed() -> None:
    assert match_classes(("dog", "ant"), KNOWN) == [3, 0]
    with pytest.raises(DataError, match=r"does not know 2 of 3 classes \('Ant', 'cat'\); it knows 'ant', 'bee', 'cow'"):
        match_classes(("Ant", "cat", "dog"), KNOWN)
