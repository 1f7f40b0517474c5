import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.engines import folder_predictions
from torchlight.model.engines.engine import Answers, pytorch_engine
from torchlight.model.engines.folder_predictions import Outcome, PredictionFile, classify_files, find_image_files
from torchlight.model.errors import PredictionFileError
from torchlight.model.images import Resizing, prepare_image
from torchlight.model.uncertainty.answer_sets import AnswerSets, ClassCoverage, SetFigures


@pytest.fixture(scope="module")
def classifier(make_classifier: Callable[..., Classifier]) -> Classifier:
    return make_classifier()


def draw(folder: Path, names: Sequence[str]) -> list[Path]:
    """Save a picture of noise under each name, and return their paths."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return [folder / name for name in names]


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_images_are_found_below_folders_in_order_and_once(tmp_path: Path) -> None:
    drawn = draw(tmp_path, ["b/2.png", "a/1.JPG", "a/c/3.webp", "z.png"])
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    single = tmp_path / "a" / "notes.txt"  # what is named is asked, whatever its name
    found = find_image_files([tmp_path / "z.png", tmp_path, single, tmp_path / "b"])
    assert found == [drawn[3], tmp_path / "a" / "1.JPG", tmp_path / "a/c/3.webp", tmp_path / "b/2.png", single]


def test_each_file_gets_the_answer_it_gets_alone(classifier: Classifier, tmp_path: Path) -> None:
    paths = draw(tmp_path, [f"{number:03}.png" for number in range(3 * folder_predictions.BATCH_SIZE + 5)])
    sizes: list[int] = []

    def answer(batch: Tensor) -> Answers:
        sizes.append(len(batch))
        return pytorch_engine(classifier).answer(batch)

    outcomes = list(classify_files(classifier, answer, paths))
    assert sizes == [folder_predictions.BATCH_SIZE] * 3 + [5]
    assert [outcome.path for outcome in outcomes] == paths
    for outcome in outcomes:
        tensor, _ = prepare_image(outcome.path.read_bytes(), Resizing(32))
        (alone,) = classifier.probabilities(tensor[None])
        assert [one.index for one in outcome.predictions] == alone.argsort(descending=True).tolist()
        assert [one.probability for one in outcome.predictions] == pytest.approx(
            alone.sort(descending=True).values.tolist(), abs=1e-6
        )


def test_each_file_gets_the_set_of_the_coverage_asked_for(classifier: Classifier, tmp_path: Path) -> None:
    (path,) = draw(tmp_path, ["1.png"])
    figures = SetFigures(0.9, 9, 1.0, 2.0, 0.0, ClassCoverage("cat", 9, 1.0))
    sets = AnswerSets(tuple([0.1] * 8 + [1.0]), 9, figures)
    header = dataclasses.replace(classifier.checkpoint.header, answer_sets=sets)
    classifier = Classifier(dataclasses.replace(classifier.checkpoint, header=header), torch.device("cpu"))
    found = {}
    for coverage in (0.5, 0.9):
        (outcome,) = classify_files(classifier, pytorch_engine(classifier).answer, [path], top_k=1, coverage=coverage)
        found[coverage] = outcome.answer_set
    assert found[0.5] == [outcome.predictions[0].label]
    assert sorted(found[0.9]) == sorted(classifier.class_names)
    out = tmp_path / "answers.jsonl"
    answers = PredictionFile(out, classifier.digest)
    list(answers.add([outcome]))
    answers.close()
    assert read(out)[0]["set"] == found[0.9]


def test_unreadable_files_are_told_and_cost_no_other_its_answer(classifier: Classifier, tmp_path: Path) -> None:
    good = draw(tmp_path, ["good.png"])[0]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    missing = tmp_path / "missing.png"
    outcomes = list(classify_files(classifier, pytorch_engine(classifier).answer, [broken, good, missing], top_k=1))
    assert [len(outcome.predictions) for outcome in outcomes] == [0, 1, 0]
    assert outcomes[1].error is None
    assert "cannot be read" in str(outcomes[0].error)
    assert "No such file" in str(outcomes[2].error)


def test_few_batches_are_decoded_ahead(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = draw(tmp_path, [f"{number}.png" for number in range(12)])
    monkeypatch.setattr(folder_predictions, "BATCH_SIZE", 1)
    loaded: list[Path] = []

    def load(path: Path, resizing: Resizing) -> Tensor:
        loaded.append(path)
        return torch.zeros(3, resizing.size, resizing.size, dtype=torch.uint8)

    monkeypatch.setattr(folder_predictions, "_load", load)
    outcomes = classify_files(classifier, pytorch_engine(classifier).answer, paths)
    for number in range(1, 4):
        next(outcomes)
        assert len(loaded) <= number + folder_predictions.BATCHES_AHEAD
    assert len(list(outcomes)) == 9
    assert sorted(loaded) == sorted(paths)


def test_answers_go_on_where_they_ended(classifier: Classifier, tmp_path: Path) -> None:
    paths = draw(tmp_path, ["1.png", "2.png", "3.png"])
    out = tmp_path / "out" / "answers.jsonl"
    answers = PredictionFile(out, classifier.digest)
    list(answers.add(classify_files(classifier, pytorch_engine(classifier).answer, paths[:2], top_k=2)))
    answers.close()
    whole = out.read_bytes()
    os.truncate(out, len(whole) - 10)  # as a process leaves it that is killed while it writes

    answers = PredictionFile(out, classifier.digest)
    left = [path for path in paths if not answers.has(path)]
    assert left == paths[1:]
    list(answers.add(classify_files(classifier, pytorch_engine(classifier).answer, left, top_k=2)))
    answers.close()
    assert out.read_bytes().startswith(whole)
    lines = read(out)
    assert [line["file"] for line in lines] == [str(path) for path in paths]
    assert {line["digest"] for line in lines} == {classifier.digest}
    assert [set(one) for one in lines[2]["predictions"]] == [{"label", "index", "probability"}] * 2
    assert [line["unknown"] for line in lines] == [None] * 3  # this checkpoint cannot tell


def test_names_that_are_no_unicode_are_written_and_found_again(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"caf\xe9.png"))
    answers = PredictionFile(tmp_path / "a.jsonl", "sha256:1")
    list(answers.add([Outcome(path, (), error="gone")]))
    answers.close()
    again = PredictionFile(tmp_path / "a.jsonl", "sha256:1")
    assert again.has(path)
    again.close()
    (line,) = read(tmp_path / "a.jsonl")
    assert line == {"file": "caf\\udce9.png", "digest": "sha256:1", "error": "gone"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            '{"file": "a.png", "digest": "sha256:1", "error": "x"}\n{"file": "b.png", "digest": "sha256:2"}\n',
            "line 2 is by",
        ),
        ("my notes\n", "line 1 is no answer"),
        ('{"a": 1}\n', "line 1 is no answer"),
        ("[1]\n", "line 1 is no answer"),
        ("\n", "line 1 is no answer"),
    ],
)
def test_other_files_are_refused_and_stay_as_they_are(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(
        PredictionFileError, match=f"answers .*a.jsonl: {reason}.*; choose another name, or remove the file"
    ):
        PredictionFile(path, "sha256:1")
    assert path.read_text() == content
