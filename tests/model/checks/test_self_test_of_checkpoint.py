"""The self-test of a checkpoint: good ones pass, every broken invariant is found, and the file speaks of one alone."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.checks import arithmetic, concurrency, faithfulness, index_values, pictures, self_test
from torchlight.model.checks.rules import ELSEWHERE, RULES
from torchlight.model.checks.self_test import (
    Check,
    SelfTest,
    load_self_test,
    run_self_test,
    save_self_test,
    self_test_path,
)
from torchlight.model.checks.subject import Subject
from torchlight.model.classifier import Classifier
from torchlight.model.defaults import PRETRAINED
from torchlight.model.drawing import colours, rendering
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.images import DecodedImage
from torchlight.model.views import image_index
from torchlight.model.views.facts import Display
from torchlight.model.views.image_index import Index, LayerExamples
from torchlight.training.data.loading import LabelledImages
from torchlight.training.index_images import index_images

MakeClassifier = Callable[..., Classifier]


@pytest.fixture(scope="module")
def classifier(make_classifier: MakeClassifier) -> Classifier:
    """The default network, whose every invariant can be checked."""
    return make_classifier("torchlight")


@pytest.fixture(scope="module")
def indexed(classifier: Classifier, noise_images: Callable[..., Tensor]) -> Index:
    images = LabelledImages(noise_images(24), torch.arange(24) % 3)
    return index_images(classifier, images, image_index.Source("noise", "sha256:0", "train", 24, False))


@pytest.fixture(scope="module")
def subject(classifier: Classifier, indexed: Index) -> Subject:
    return Subject(classifier, self_test.draw_images(2, 32), indexed)


def take_less_time(patch: pytest.MonkeyPatch) -> None:
    """Weights as random as these need fewer steps, and a broken trace shows at once."""
    patch.setattr(faithfulness, "STEPS", (64,))
    patch.setattr(arithmetic, "TRACED_NUMBERS", 20)


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    take_less_time(monkeypatch)


@pytest.fixture(scope="module")
def good(classifier: Classifier, indexed: Index) -> tuple[SelfTest, list[tuple[int, int]]]:
    """The self-test of a good checkpoint with an index, and the progress it reported."""
    done: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        take_less_time(patch)
        return run_self_test(classifier, indexed, lambda *progress: done.append(progress)), done


@pytest.fixture(scope="module")
def good_rules(good: tuple[SelfTest, list[tuple[int, int]]]) -> set[str]:
    """The titles of the rules that a good checkpoint keeps."""
    return {check.title for check in good[0].checks if check.outcome == "pass"}


def test_good_checkpoint_with_an_index_passes_every_check(
    classifier: Classifier, good: tuple[SelfTest, list[tuple[int, int]]]
) -> None:
    result, done = good
    assert result.failed == ()
    assert {check.title for check in result.checks if check.outcome == "pass"} == {rule.title for rule in RULES}
    assert {check.title for check in result.checks if check.outcome != "pass"} == {title for _, title, _ in ELSEWHERE}
    assert result.checkpoint == classifier.digest
    assert done == [(number, len(RULES)) for number in range(1, len(RULES) + 1)]
    assert sorted({int(check.id[1:]) for check in result.checks}) == list(range(1, 22))


@pytest.mark.usefixtures("fewer")
def test_what_a_network_cannot_show_is_not_applicable_with_the_reason(make_classifier: MakeClassifier) -> None:
    result = run_self_test(make_classifier("lenet5"))
    reasons = {check.title: check.note for check in result.checks if check.outcome == "not applicable"}
    assert result.failed == ()
    assert reasons["folded filters give what batch norm gives"].startswith("no convolution of this network is followed")
    assert reasons["HiResCAM: cells + bias = logit"].startswith("after 'pool2' comes 'conv3'")
    assert reasons["neighbours are the nearest"].startswith("there is no index beside the checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["efficientnet_lite0", "efficientnet_lite0_multilevel"])
def test_backbone_passes_every_check_that_needs_no_index(architecture: str, make_backbone: MakeClassifier) -> None:
    result = run_self_test(make_backbone(architecture))
    notes = {check.title: check.note for check in result.checks if check.outcome == "pass"}
    assert result.failed == ()
    assert set(notes) == {rule.title for rule in RULES if rule.id not in ("C16", "C17")}
    assert notes["HiResCAM: cells + bias = logit"] == "head.relu, 4 images"
    assert notes["deconvnet: nothing outside the receptive field"].startswith("3 of 3 layers")  # before the first ReLU6


@pytest.mark.slow
def test_fields_of_a_channels_last_network_are_where_gradients_reach(make_classifier: MakeClassifier) -> None:
    found = arithmetic.receptive_field_boxes(Subject(make_classifier("convnext_tiny", 64), torch.zeros(2), None))
    assert found == (0, "24 layers")


@pytest.mark.slow
def test_checkpoint_that_ships_passes() -> None:
    result = run_self_test(Classifier(load_checkpoint(PRETRAINED), torch.device("cpu")))
    assert result.failed == ()


def shifted(function: Callable[..., object], **fields: Callable[[Tensor], Tensor]) -> Callable[..., object]:
    """Return a function whose result has some fields changed."""

    def changed(*arguments: object, **options: object) -> object:
        result = function(*arguments, **options)
        return replace(result, **{name: change(getattr(result, name)) for name, change in fields.items()})

    return changed


def off_by_one(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments, **options: function(*arguments, **options) + 1


def never_the_same(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    calls = count()
    return lambda *arguments, **options: function(*arguments, **options) + 0.01 * next(calls)


def brighter(function: Callable[..., Display]) -> Callable[..., Display]:
    """Return a function that shows other values than those of the layer."""
    return lambda maps, **options: function(maps.abs().sqrt() * maps.sign() + 0.1, **options)


BROKEN = {  # title of a rule -> where it is broken, what, and how
    "a traced number is the network's own": (
        arithmetic,
        "trace",
        lambda f: shifted(f, framework=lambda value: value + 0.01),
    ),
    "probabilities add up to 1": (Classifier, "probabilities", lambda f: lambda *a: 1.01 * f(*a)),
    "the first convolution by loops is the layer": (
        arithmetic,
        "_in_and_out",
        lambda f: lambda *a: (f(*a)[0], f(*a)[1] + 0.01),
    ),
    "inspection starts from the logits that are served": (
        arithmetic,
        "layer_outputs",
        lambda f: lambda *a: {name: output + 0.01 for name, output in f(*a).items()},
    ),
    "folded filters give what batch norm gives": (
        arithmetic,
        "filters",
        lambda f: shifted(f, bias=lambda bias: bias + 0.01),
    ),
    "receptive fields are where gradients reach": (
        arithmetic,
        "find_seen_pixels",
        lambda f: lambda graph, name, y, x: f(graph, name, y, max(0, x - 1)),
    ),
    "HiResCAM: cells + bias = logit": (
        faithfulness,
        "hires_cam",
        lambda f: shifted(f, map=lambda map: map.relu() + 0.01),
    ),
    "integrated gradients: cells + bias = logit": (
        faithfulness,
        "integrated_gradients",
        lambda f: shifted(f, map=lambda map: map + 0.01),
    ),
    "saliency is the slope of the logit": (faithfulness, "saliency", lambda f: shifted(f, map=lambda map: map * 1.05)),
    "deconvnet: <Wx, y> = <x, W'y>": (
        faithfulness,
        "reconstruct",
        lambda f: shifted(f, pixels=lambda pixels: pixels.flip(2)),
    ),
    "deconvnet: nothing outside the receptive field": (
        faithfulness,
        "reconstruct",
        lambda f: shifted(f, pixels=lambda pixels: pixels.roll(1, 2)),
    ),
    "occlusion is the answer for a painted image": (
        faithfulness,
        "occlusion",
        lambda f: shifted(f, map=lambda map: map.T),
    ),
    "neighbours are the nearest": (index_values, "embed", lambda f: lambda *a: f(*a).flip(1)),
    "values can be read back from pictures": (pictures, "display_maps", brighter),
    "the same view twice is the same bytes": (pictures, "activation_maps", never_the_same),
    "calls at once give what they give alone": (concurrency, "activation_maps", never_the_same),
}


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("title", BROKEN)
def test_broken_view_is_found(
    title: str, subject: Subject, good_rules: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (rule,) = (rule for rule in RULES if rule.title == title)
    assert title in good_rules
    module, name, change = BROKEN[title]
    monkeypatch.setattr(module, name, change(getattr(module, name)))
    assert rule.measure(subject).measured > rule.bound


def smudged(decode: Callable[..., DecodedImage]) -> Callable[..., DecodedImage]:
    """Return a reader of pictures that finds one pixel of each map in another colour than its block."""

    def decode_with_a_spot(png: bytes) -> DecodedImage:
        image = decode(png)
        image.pixels.putpixel((rendering.MARGIN + 1, rendering.TOP + 1), rendering.MARK)
        return image

    return decode_with_a_spot


@pytest.mark.parametrize(
    ("module", "name", "change"),
    [
        pytest.param(colours, "sequential", lambda f: lambda: np.roll(f(), 1, axis=0), id="zero of unsigned maps"),
        pytest.param(colours, "diverging", lambda f: lambda: np.roll(f(), 1, axis=0), id="zero of signed maps"),
        pytest.param(pictures, "decode_image", smudged, id="blocks"),
        pytest.param(pictures, "text_chunks", lambda f: lambda png: f(png) | {"vmax": "7"}, id="legend"),
    ],
)
def test_picture_that_breaks_one_invariant_is_found(
    module: ModuleType, name: str, change: Callable[..., object], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = torch.zeros(2, 6, 6)
    zeros[0, 0, 0], zeros[1, 5, 5] = -1.0, 2.0
    monkeypatch.setattr(pictures, "_maps_to_draw", lambda _: [(zeros, 0), (zeros.abs(), 1)])
    assert pictures.zero_blocks_and_legend(subject).measured == 0
    monkeypatch.setattr(module, name, change(getattr(module, name)))
    assert pictures.zero_blocks_and_legend(subject).measured > 0


def test_layers_that_do_not_fire_are_no_evidence_for_the_deconvnet(make_classifier: MakeClassifier) -> None:
    dead = make_classifier("torchlight")
    for module in dead.network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Linear):
            module.weight.data.zero_()
            module.bias.data.zero_()
    images = self_test.draw_images(2, 32)
    assert faithfulness.deconvnet_stays_inside(Subject(dead, images, None)).note.startswith("1 of 8 layers")
    dead.network.conv1.weight.data.zero_()
    with pytest.raises(ViewNotApplicable, match="no layer with a way down fires"):
        faithfulness.deconvnet_stays_inside(Subject(dead, images, None))


def with_examples(made: Index, change: Callable[[LayerExamples], LayerExamples]) -> Index:
    return replace(made, layers={name: change(examples) for name, examples in made.layers.items()})


def upside_down(examples: LayerExamples) -> LayerExamples:
    return replace(examples, values=examples.values.flip(1), places=examples.places.flip(1))


@pytest.mark.parametrize(
    ("title", "change"),
    [
        (
            "examples of units have the values recorded",
            lambda one: replace(one, values=one.values + 0.1),
        ),
        ("no image was left out of the best", upside_down),
    ],
)
def test_broken_index_is_found(
    title: str, change: Callable[[LayerExamples], LayerExamples], subject: Subject, good_rules: set[str]
) -> None:
    (rule,) = (rule for rule in RULES if rule.title == title)
    assert title in good_rules
    assert rule.measure(replace(subject, index=with_examples(subject.index, change))).measured > rule.bound


@pytest.mark.parametrize("leave", ["hook", "gradient", "mode"])
def test_what_is_left_on_the_network_is_found(leave: str, make_classifier: MakeClassifier) -> None:
    (rule,) = (rule for rule in RULES if rule.title == "nothing is left on the network")
    one = make_classifier("lenet5")
    clean = Subject(one, self_test.draw_images(2, 32), None)
    assert rule.measure(clean).measured == 0
    doing: dict[str, Callable[[nn.Module], object]] = {
        "hook": lambda network: network.conv1.register_forward_hook(lambda *_: None),
        "gradient": lambda network: network.conv1.weight.requires_grad_(),
        "mode": lambda network: network.conv1.train(),
    }
    doing[leave](one.network)
    assert rule.measure(clean).measured == 1


def test_law_that_gives_no_number_fails() -> None:
    broken = Classifier.__new__(Classifier)
    rule = RULES[0]._replace(measure=lambda subject: arithmetic.Finding(float("nan"), "all of it"))
    check = self_test._check(rule, Subject(broken, torch.zeros(1), None))
    assert (check.outcome, check.measured, check.note) == ("fail", None, "all of it")


def test_drawn_images_are_the_same_every_time_and_differ_from_each_other() -> None:
    images = self_test.draw_images(4, 24)
    assert images.shape == (4, 3, 24, 24)
    assert images.dtype == torch.uint8
    assert torch.equal(images, self_test.draw_images(4, 24))
    assert len({one.numpy().tobytes() for one in images}) == 4


MADE = SelfTest(
    "sha256:1",
    1.5,
    (Check("C1", "a rule", "fail", None, 1e-5, "ünïcode"), Check("C2", "x", "pass", 0.0, 1.0, "")),
)


def test_result_comes_back_for_the_checkpoint_it_is_of_and_for_no_other(tmp_path: Path) -> None:
    path = self_test_path(tmp_path / "cats.safetensors")
    assert path.name == "cats.selftest.json"
    assert load_self_test(path, "sha256:1") is None
    save_self_test(path, MADE)
    assert load_self_test(path, "sha256:1") == MADE
    assert load_self_test(path, "sha256:2") is None
    assert [file.name for file in tmp_path.iterdir()] == ["cats.selftest.json"]
    assert [check.id for check in MADE.failed] == ["C1"]


def test_failing_write_leaves_the_old_result_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "cats.selftest.json"
    path.write_text("the old one")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_self_test(path, MADE)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_that_ships_has_its_result() -> None:
    digest = load_checkpoint(PRETRAINED).digest
    found = load_self_test(self_test_path(PRETRAINED), digest)
    assert found is not None
    assert found.failed == ()
    assert {check.title for check in found.checks} == {rule.title for rule in RULES} | {
        title for _, title, _ in ELSEWHERE
    }


GOOD = {"id": "C1", "title": "a rule", "outcome": "pass", "measured": 0.0, "bound": 1.0, "note": ""}


def file_of(**fields: object) -> str:
    """Return the text of a result with some fields of it, or of its one check, exchanged."""
    whole = {"checkpoint": "sha256:1", "seconds": 1.5, "checks": [GOOD]}
    return json.dumps({**whole, "checks": [GOOD | fields]} if GOOD.keys() & fields.keys() else whole | fields)


def test_good_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "cats.selftest.json"
    path.write_text(file_of())
    assert load_self_test(path, "sha256:1") == SelfTest("sha256:1", 1.5, (Check(**GOOD),))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", '{"checkpoint": "sha256:1"}', "[" * 100_000),
        *(file_of(seconds="soon"), file_of(seconds=None), file_of(checks=[1]), file_of(checks="C1"), file_of(more=1)),
        *(file_of(id=1), file_of(title=None), file_of(outcome="perhaps"), file_of(outcome=[]), file_of(note=2)),
        *(file_of(measured="0"), file_of(bound=[1]), file_of(measured=float("nan")), file_of(bound=True)),
    ],
)  # fmt: skip
def test_other_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cats.selftest.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cats\.selftest\.json is not the result of a self-test"):
        load_self_test(path, "sha256:1")
