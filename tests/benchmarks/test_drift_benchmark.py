"""The benchmark of drift: its rows for photos that change and for photos that do not, by a tiny network's answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import drift
from tests.novelty_of import novelty_of, plain_images
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import pytorch_engine
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    """A network with random weights, which knows plain images."""
    config = NetworkConfig("guide", 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config)
    spec = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    header = Header(config, ("a", "b"), spec, metrics={}, training={}, data={}, versions={})
    save_checkpoint(tmp_path / "tiny.safetensors", network, header, novelty=novelty_of(network, header))
    return Classifier(load_checkpoint(tmp_path / "tiny.safetensors"), torch.device("cpu"))


def answered(classifier: Classifier, folder: Path, images: Tensor) -> drift.Answered:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return drift.answer_folder(classifier, pytorch_engine(classifier), folder)


def test_rows_of_the_tables(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "ORDERS", 3)
    monkeypatch.setattr(drift, "STREAMS", 2)
    monkeypatch.setattr(drift, "LONG", 400)
    known = answered(classifier, tmp_path / "known", plain_images(60, 32, seed=5))
    noise = torch.randint(0, 256, (30, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    other = answered(classifier, tmp_path / "other", noise)
    assert known.coordinates.shape[0] == len(known.labels) == len(known.p_values) == 60
    novelty = classifier.checkpoint.novelty
    assert novelty is not None
    found, median, worst, *figures = drift.describe_changes(novelty, known, other, processes=2)
    assert found == "3/3"
    assert 1 < int(median) <= int(worst) < 100
    assert len(figures) == 3
    assert drift.describe_changes(novelty, known, known, processes=1)[:3] == ["0/3", "-", "-"]
    assert drift.describe_alarms(novelty, known, processes=2)[0] == "0"


def test_photos_are_drawn_again_once_all_were() -> None:
    rows = drift.draw_without_repeats(3, 7, np.random.default_rng(0))
    assert sorted(rows[:3]) == sorted(rows[3:6]) == [0, 1, 2]
    assert len(rows) == 7
