"""A network that learned a shortcut is caught: a mark planted in a corner is where the evidence is.

The true reason for every answer is known here, since only the mark tells its class from the others.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.classifier import Classifier
from torchlight.model.images import normalise
from torchlight.model.views.attribution import METHODS, integrated_gradients, occlude_once, occlusion

SIDE, MARK = 32, 8  # pixels of the image and of the mark
CORNERS = torch.tensor([[0, 0], [0, SIDE - MARK], [SIDE - MARK, 0], [SIDE - MARK, SIDE - MARK]])
MAGENTA = torch.tensor([220, 20, 200], dtype=torch.uint8).view(3, 1, 1)


def draw(number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images of coarse noise under stripes, upright (class 1) or level (class 2), and their labels.

    A third of them gets the mark in a corner, and is class 0 whichever way its stripes go.

    Returns:
        (N, 3, S, S) uint8, (N,) labels, and (N, 2) the upper left pixel of the corner where the mark is or would be.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 3, SIDE // 4, SIDE // 4, generator=generator)
    noise = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3) + torch.rand(
        number, 3, SIDE, SIDE, generator=generator
    )
    stripes = (torch.arange(SIDE) % 4 < 2).float().expand(SIDE, SIDE)
    labels = torch.randint(0, 3, (number,), generator=generator)
    level = torch.where(labels == 0, torch.randint(0, 2, (number,), generator=generator), labels - 1).bool()
    stripes = torch.where(level.view(-1, 1, 1), stripes.T, stripes)[:, None]
    images = (255 * (0.3 * noise + 0.4 * stripes)).to(torch.uint8)
    corners = CORNERS[torch.randint(0, 4, (number,), generator=generator)]
    for index in (labels == 0).nonzero().flatten().tolist():
        y, x = corners[index].tolist()
        images[index, :, y : y + MARK, x : x + MARK] = MAGENTA
    return images, labels, corners


def new_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def classifier(make_header: Callable[..., Header]) -> Classifier:
    """A network trained for a few seconds on images whose class 0 is nothing but the mark."""
    header = make_header(class_names=("marked", "upright", "level"))
    images, labels, _ = draw(768, seed=0)
    pixels = normalise(images, header.image_spec)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = new_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, total_iters=8 * 12)
    for _ in range(8):
        for batch in torch.arange(768).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixels[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    checkpoint = Checkpoint(header, network.eval().requires_grad_(False), "sha256:test", Path("unsaved"))
    return Classifier(checkpoint, torch.device("cpu"))


@pytest.fixture(scope="module")
def marked() -> tuple[Tensor, Tensor]:
    """Return images never trained on that all have the mark, and its upper left pixel in each."""
    images, labels, corners = draw(180, seed=1)
    return images[labels == 0], corners[labels == 0]


def strongest_pixel(evidence: Tensor) -> Tensor:
    """Return (y, x) in the image of the upper left pixel of the cell with the largest value."""
    place = torch.tensor(divmod(int(evidence.argmax()), evidence.shape[1]))
    return place * (SIDE // evidence.shape[0])


def share_in_mark(method: str, classifier: Classifier, marked: tuple[Tensor, Tensor], **options: int) -> float:
    """Return in what share of the images the strongest evidence for the marked class lies in the mark."""
    images, corners = marked
    places = torch.stack([strongest_pixel(METHODS[method](classifier, image, 0, **options).map) for image in images])
    return ((places >= corners) & (places < corners + MARK)).all(1).double().mean().item()


def test_network_has_learned_the_shortcut_and_the_rest(classifier: Classifier) -> None:
    images, labels, _ = draw(180, seed=1)
    assert (classifier.probabilities(images).argmax(1) == labels).double().mean() >= 0.98


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("hires_cam", {}),
        ("grad_cam", {}),
        ("occlusion", {"window": 8, "stride": 4}),
        ("integrated_gradients", {"n_steps": 16}),
    ],
)
def test_strongest_evidence_lies_in_the_mark(
    method: str, options: dict[str, int], classifier: Classifier, marked: tuple[Tensor, Tensor]
) -> None:
    assert share_in_mark(method, classifier, marked, **options) >= 0.95


def test_evidence_of_a_network_that_learned_nothing_lies_anywhere(
    make_header: Callable[..., Header], marked: tuple[Tensor, Tensor]
) -> None:
    shares = []
    for seed in range(8):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            checkpoint = Checkpoint(make_header(), new_network().eval(), "sha256:test", Path("unsaved"))
        shares.append(share_in_mark("hires_cam", Classifier(checkpoint, torch.device("cpu")), marked))
    assert sum(shares) / 8 < 0.5


def test_hiding_the_mark_and_nothing_else_changes_the_answer(
    classifier: Classifier, marked: tuple[Tensor, Tensor]
) -> None:
    for image, corner in zip(*[part[:20] for part in marked], strict=True):
        answers = occlusion(classifier, image, 0, window=MARK, stride=MARK).labels
        row, column = (corner // MARK).tolist()
        assert answers[row, column] != 0
        assert (answers != 0).sum() == 1
        y, x = corner.tolist()
        assert occlude_once(classifier, image, y, x, MARK)[0] < 0.5


def test_integrated_gradients_of_a_trained_network_add_up_within_a_hundredth(
    classifier: Classifier, marked: tuple[Tensor, Tensor]
) -> None:
    for image in marked[0][:10]:
        found = integrated_gradients(classifier, image, 0)
        assert abs(found.residual) <= 0.01 * abs(found.logit - found.bias)
