"""The range test finds the edge where gradient descent breaks, and says nothing where nothing is learnt."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from torchlight import command
from torchlight.training import lr_finder
from torchlight.training.config import RunOptions
from torchlight.training.lr_finder import (
    STEPS,
    NothingLearnt,
    advise,
    draw,
    has_exploded,
    rate_factor,
    smooth,
)
from torchlight.training.optimisation.loop import StepResult
from torchlight.training.report.charts import to_png
from torchlight.training.run_setup import Observer, Setup, set_up

RATES = [10 * rate_factor(step) for step in range(STEPS)]


def descend(curvature: float) -> tuple[list[float], list[float]]:
    """Return rates and losses of gradient descent on 1 + curvature * w^2 / 2; over 2 / curvature it diverges."""
    weight, losses = 1.0, []
    for rate in RATES:
        losses.append(1 + curvature * weight**2 / 2)
        weight -= rate * curvature * weight
        if has_exploded(losses):
            break
    return RATES[: len(losses)], losses


@pytest.mark.parametrize("curvature", [1.0, 10.0, 100.0], ids=str)
def test_regions_surround_the_rates_at_which_a_parabola_is_descended(curvature: float) -> None:
    rates, losses = descend(curvature)
    advice = advise(rates, losses)
    assert advice.low < advice.suggestion < advice.high
    assert 1e-3 / curvature < advice.low < 0.5 / curvature
    assert 0.5 / curvature < advice.high < 10 / curvature  # 2 / curvature, and a few steps until the loss has risen
    assert advice.suggestion < 2 / curvature


def test_advice_scales_with_the_curvature() -> None:
    """Ten times as steep: about a tenth of the rate, for every figure of the advice."""
    flat, steep = (advise(*descend(curvature)) for curvature in (1.0, 10.0))
    for name in ("low", "suggestion", "high"):
        assert 5 < getattr(flat, name) / getattr(steep, name) < 20


def test_test_ends_when_the_loss_explodes() -> None:
    rates, losses = descend(100.0)
    assert len(losses) < STEPS
    assert not has_exploded(losses[:-1])
    assert rates[-1] < 10


def test_rates_rise_by_equal_factors_from_the_lowest_to_the_highest() -> None:
    rates = torch.tensor(RATES, dtype=torch.float64)
    assert RATES[0] == pytest.approx(1e-5)
    assert RATES[-1] == pytest.approx(10)
    torch.testing.assert_close(rates[1:] / rates[:-1], torch.full((STEPS - 1,), 1e6 ** (1 / (STEPS - 1))).double())


def test_smoothing_keeps_a_constant_and_shifts_nothing() -> None:
    torch.testing.assert_close(smooth([3.0] * 40), torch.full((40,), 3.0, dtype=torch.float64))
    bump = smooth([0.0] * 20 + [1.0] + [0.0] * 20)
    assert int(bump.argmax()) == 20
    torch.testing.assert_close(bump, bump.flip(0))


@pytest.mark.parametrize(
    "losses",
    [[2.3] * STEPS, [2.3 + step / 10 for step in range(STEPS)], [2.3 - step / 5000 for step in range(STEPS)]],
    ids=["constant", "rising", "hardly falling"],
)
def test_loss_that_does_not_fall_gives_no_advice(losses: list[float]) -> None:
    with pytest.raises(NothingLearnt, match=r"2\.\d+ at first, falls at no learning rate between 1e-05 and 10"):
        advise(RATES, losses)


def test_loss_that_never_rises_is_right_to_the_end() -> None:
    advice = advise(RATES, [2.3] * 50 + [2.3 - step / 40 for step in range(50)])
    assert advice.high == RATES[-1]
    assert RATES[40] < advice.low < RATES[60]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, draw_folder: Callable[..., Path]) -> Setup:
    photos = draw_folder(tmp_path_factory.mktemp("rates") / "photos", 20)
    options = RunOptions(source=str(photos), out=Path("unused"), architecture="lenet5", settings={"batch_size": 16})
    return set_up(options, torch.device("cpu"), Observer())


def test_real_network_is_measured_in_the_unit_of_the_option_and_learns_at_the_suggestion(setup: Setup) -> None:
    steps: list[StepResult] = []
    rates, losses = lr_finder.measure(setup, steps.append)
    advice = advise(rates, losses)
    assert rates[0] == pytest.approx(1e-5 * 512 / 16)
    assert losses == [step.loss for step in steps]
    assert losses[0] == pytest.approx(1.1, abs=0.1)  # ln 3 is guessing
    assert 0.01 < advice.low < advice.suggestion < advice.high < 320


def test_figure_is_a_picture_with_the_three_regions_in_words() -> None:
    rates, losses = descend(10.0)
    figure = draw(rates, losses, advise(rates, losses))
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[:3] == ["too low", "right", "too high"]
    assert words[3].startswith("suggested: ")
    assert figure.axes[0].get_xscale() == "log"
    with Image.open(io.BytesIO(to_png(figure)), formats=["PNG"]) as image:
        assert min(image.size) > 400


def find_lr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str
) -> tuple[int, str]:
    """Run the command on ``photos`` in the folder; return its exit code and what it said."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["torchlight", "find-lr", "photos", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    written = capsys.readouterr()
    return int(caught.value.code or 0), written.out + written.err


def test_command_draws_the_picture_and_says_what_to_pass(
    draw_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw_folder(tmp_path / "photos", 20)
    code, said = find_lr(
        monkeypatch, capsys, tmp_path, "--architecture", "lenet5", "--batch-size", "16", "--out", "made"
    )
    assert code == 0
    assert re.search(r"^try: --learning-rate [\d.e-]+$", said, re.MULTILINE)
    assert re.search(r"^too low below [\d.e-]+, too high above [\d.e+-]+$", said, re.MULTILINE)
    with Image.open(tmp_path / "made" / "learning-rate.png", formats=["PNG"]) as image:
        image.load()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["learning-rate.png"]


def test_suggestion_for_a_network_that_muon_trains_names_the_optimizer_it_is_for(
    draw_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw_folder(tmp_path / "photos", 20)
    monkeypatch.setattr(lr_finder, "measure", lambda setup, on_step: descend(10.0))
    code, said = find_lr(monkeypatch, capsys, tmp_path)
    assert code == 0
    assert "try: --optimizer sgd --learning-rate 0." in said


def test_nothing_learnt_is_one_line_and_no_picture(
    draw_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw_folder(tmp_path / "photos", 20)
    monkeypatch.setattr(lr_finder, "measure", lambda setup, on_step: (RATES, [2.3] * STEPS))
    code, said = find_lr(monkeypatch, capsys, tmp_path, "--architecture", "lenet5", "--out", "made")
    assert code == 1
    assert "torchlight: the loss, 2.3 at first, falls at no learning rate" in said
    assert not (tmp_path / "made").exists()
