"""Figures open as pictures, for small and for large runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.evaluation import Metrics, evaluate
from training.loop import EpochResult
from training.report import draw_confusion, draw_curves, write


def history(epochs: int) -> list[EpochResult]:
    return [
        EpochResult(epoch, 2 / epoch, 1 - 0.5 / epoch, 3 / epoch, 1 - 0.6 / epoch, 0.1, 1.0)
        for epoch in range(1, epochs + 1)
    ]


def metrics(class_names: tuple[str, ...]) -> Metrics:
    number = len(class_names)
    labels = torch.arange(number).repeat(4)
    logits = torch.randn(4 * number, number, generator=torch.Generator().manual_seed(0))
    return evaluate(logits, labels, class_names)


@pytest.mark.parametrize("epochs", [1, 12], ids=["one epoch", "twelve epochs"])
def test_figures_are_pictures_with_something_on_them(epochs: int, tmp_path: Path) -> None:
    write(tmp_path, history(epochs), metrics(("cat", "dog", "owl")), "test")
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "confusion.png"}
    for name in ("curves.png", "confusion.png"):
        with Image.open(tmp_path / name, formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 200
        assert pixels.std() > 5


def test_curves_show_every_epoch_of_both_splits() -> None:
    loss, accuracy = draw_curves(history(5)).axes
    assert [list(line.get_xdata()) for line in loss.lines] == [[1, 2, 3, 4, 5]] * 2
    assert list(accuracy.lines[1].get_ydata()) == pytest.approx([40, 70, 80, 85, 88])
    assert "best: 88.00% in epoch 5" in [text.get_text() for text in accuracy.texts]


def test_confusion_names_both_axes_and_counts() -> None:
    figure = draw_confusion(
        evaluate(torch.eye(2).repeat(3, 1), torch.tensor([0, 1, 0, 0, 0, 1]), ("cat", "dog")), "val"
    )
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "2"]
    assert "83.33% of 6 images right (val)" in axes.get_title()


@pytest.mark.parametrize(
    "class_names",
    [
        pytest.param(tuple(f"class {k}" for k in range(120)), id="many classes"),
        pytest.param(("$5 note", "$10 note"), id="dollars"),
        pytest.param(("a$\\frac$", "b$^^$"), id="broken formulas"),
        pytest.param(("snake_case", "100%", "a\\b"), id="signs"),
        pytest.param(("a" * 40, "b"), id="long name"),
    ],
)
def test_class_names_of_any_kind_can_be_drawn(class_names: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, history(2), metrics(class_names), "test")
    with Image.open(tmp_path / "confusion.png", formats=["PNG"]) as image:
        image.load()
        assert image.width > 100
