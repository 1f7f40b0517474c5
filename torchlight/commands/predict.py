"""``torchlight predict``."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchlight.commands.options import CheckpointPath, Device, open_classifier
from torchlight.commands.terminal import draw_bar, show_progress, write_line
from torchlight.model.defaults import COVERAGE, LOWEST_COVERAGE
from torchlight.model.errors import DataError

if TYPE_CHECKING:
    from torchlight.model.classifier import Classifier
    from torchlight.model.engines.folder_predictions import Outcome

MAX_LABELS = 5  # of a set, in the terminal


def predict(
    checkpoint_path: CheckpointPath,
    paths: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    top_k: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="A .jsonl file for the answers; images that it holds are not classified again.")
    ] = None,
    coverage: Annotated[
        float,
        typer.Option(min=LOWEST_COVERAGE, max=0.999, help="Share of images whose set of labels holds the true one."),
    ] = COVERAGE,
    device: Device = "auto",
) -> None:
    """Classify image files, in the terminal or into a file. Exit code 1 if one of them cannot be read."""
    from torchlight.model.engines import folder_predictions
    from torchlight.model.engines.engine import pytorch_engine

    classifier = open_classifier(checkpoint_path, device)
    found = folder_predictions.find_image_files(paths)
    if not found:
        suffixes = " ".join(sorted(folder_predictions.SUFFIXES))
        raise DataError(f"{', '.join(map(str, paths))}: no images in there; their names must end in one of {suffixes}")
    if out is not None:
        raise typer.Exit(1 if _predict_into(out, classifier, found, top_k, coverage) else 0)
    failures = 0
    answer = pytorch_engine(classifier).answer
    for outcome in folder_predictions.classify_files(classifier, answer, found, top_k, coverage):
        write_line(str(outcome.path), style="bold")
        failures += outcome.error is not None
        write_outcome(outcome, coverage)
    raise typer.Exit(1 if failures else 0)


def write_outcome(outcome: "Outcome", coverage: float) -> None:
    """Write the answer to one image: labels, whether it is unlike all that was learnt, and the answer set."""
    from torchlight.model.uncertainty.novelty import is_unknown

    if outcome.error is not None:
        write_line(f"  {outcome.error}", style="red")
        return
    width = max(len(one.label) for one in outcome.predictions)
    for one in outcome.predictions:
        write_line(f"  {one.label:{width}} {one.probability:7.2%} {draw_bar(one.probability)}")
    if outcome.p_value is not None and is_unknown(outcome.p_value):
        share = f"{100 * outcome.p_value:.2g} of 100"
        write_line(f"  unlike anything that it learnt: {share} known images are as strange", style="yellow")
    if outcome.answer_set is not None:
        write_line(f"  {describe_set(outcome.answer_set, coverage)}")


def describe_set(labels: list[str], coverage: float) -> str:
    """Return an answer set as a sentence; of more than ``MAX_LABELS`` the first, and how many more there are."""
    named = labels if len(labels) <= MAX_LABELS else [*labels[:MAX_LABELS], f"one of {len(labels) - MAX_LABELS} more"]
    share = Fraction(str(coverage))
    often = f"for {share.numerator} of {share.denominator} images"
    return f"{' or '.join(named)}: {often}, the truth is among the names given here"


def _predict_into(out: Path, classifier: "Classifier", paths: list[Path], top_k: int, coverage: float) -> int:
    """Write the answers that are not in ``out`` yet, and return how many of the images cannot be read."""
    from torchlight.model.engines import folder_predictions
    from torchlight.model.engines.engine import choose_engine

    engine = choose_engine(classifier, "auto")  # for a few files it would take longer to start than they do
    failures: list[Outcome] = []
    with closing(folder_predictions.PredictionFile(out, classifier.digest)) as answers, show_progress() as progress:
        left = [path for path in paths if not answers.has(path)]
        task = progress.add_task("classifying", total=len(paths), completed=len(paths) - len(left), figures="")
        for outcome in answers.add(folder_predictions.classify_files(classifier, engine.answer, left, top_k, coverage)):
            progress.advance(task)
            failures += [outcome] if outcome.error is not None else []
    classified = f"{len(left)} of {len(paths)} images classified now"
    write_line(f"{classified}, {len(failures)} of them not readable; answers: {out}")
    for outcome in failures[:10]:
        write_line(f"  {outcome.path}: {outcome.error}", style="red")
    return len(failures)
