"""History and metrics -> PNG figures, to paste anywhere; the report draws its own."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from torchlight.training.evaluation.classification_metrics import Metrics
from torchlight.training.optimisation.loop import EpochResult, best_epoch
from torchlight.training.report.markup import clean, shorten

TRAIN, VAL = "#8a8f98", "#0b6e99"  # grey and blue: apart in lightness too, for print and for the colour-blind


def draw_curves(history: Sequence[EpochResult]) -> Figure:
    """Return loss and accuracy by epoch, the best epoch marked."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    epochs = [result.epoch for result in history]
    loss_axes.plot(epochs, [r.train_loss for r in history], color=TRAIN, marker=".", label="training")
    loss_axes.plot(epochs, [r.val_loss for r in history], color=VAL, marker=".", label="validation")
    loss_axes.set(title="Loss", xlabel="epoch")
    accuracy_axes.plot(epochs, [100 * r.train_accuracy for r in history], color=TRAIN, marker=".", label="training")
    accuracy_axes.plot(epochs, [100 * r.val_accuracy for r in history], color=VAL, marker=".", label="validation")
    best = best_epoch(history)
    accuracy_axes.plot(best.epoch, 100 * best.val_accuracy, "o", color=VAL, markersize=9, fillstyle="none")
    summary = f"best: {100 * best.val_accuracy:.2f}% in epoch {best.epoch}"
    accuracy_axes.text(0.98, 0.04, summary, color=VAL, ha="right", transform=accuracy_axes.transAxes)
    accuracy_axes.set(title="Accuracy (%)", xlabel="epoch")
    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    return figure


def draw_confusion(metrics: Metrics, split: str) -> Figure:
    """Return the confusion matrix: rows are true classes, colour is the share of the row, numbers are counts."""
    confusion = np.array(metrics.confusion)
    labels = [shorten(clean(one.label)) for one in metrics.per_class]
    number = len(labels)
    share = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    side = 2.2 + 0.5 * min(number, 40)
    figure = Figure(figsize=(side + 1.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if number <= 40:
        axes.set_xticks(range(number), labels, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(number), labels, parse_math=False)
        for row, column in np.argwhere(confusion > 0):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        title=f"{100 * metrics.accuracy:.2f}% of {metrics.images} images right ({split})",
    )
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    return figure


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG; signs that the font lacks are boxes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
