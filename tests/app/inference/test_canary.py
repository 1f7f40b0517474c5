"""The canary image: drawn the same everywhere, its answer stored with the weights, and asked for before readiness."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import torch

from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.canary import canary_answer, check_canary, draw_canary_image
from torchlight.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.errors import CanaryMismatch, InvalidHeader

Change = Callable[[tuple[float, ...]], tuple[float, ...] | None]


@pytest.fixture
def save_with(tiny_checkpoint: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Save the tiny checkpoint with another answer to the canary image than its own."""

    def save(change: Change) -> Path:
        loaded = load_checkpoint(tiny_checkpoint)
        own = canary_answer(loaded.network, loaded.header.image_spec)
        path = tmp_path / "changed.safetensors"
        save_checkpoint(path, loaded.network, replace(loaded.header, golden=change(own)))
        return path

    return save


def moved(by: float) -> Change:
    return lambda own: (own[0] + by, *own[1:])


def test_the_picture_is_exactly_this() -> None:
    red, green, blue = draw_canary_image(4)
    assert red.tolist() == [[0, 85, 170, 255]] * 4
    assert green.tolist() == [[0] * 4, [85] * 4, [170] * 4, [255] * 4]
    assert blue[1].tolist() == [85, 0, 255, 170]
    assert draw_canary_image(32).dtype == torch.uint8
    assert draw_canary_image(1).shape == (3, 1, 1)


def test_the_answer_is_the_one_that_a_classifier_gives(classifier: Classifier) -> None:
    stored = torch.tensor(canary_answer(classifier.network, classifier.spec))
    served = classifier.probabilities(draw_canary_image(classifier.spec.size)[None])[0]
    torch.testing.assert_close(served, stored, atol=2e-6, rtol=0)


def test_the_answer_comes_back_from_the_file(save_with: Callable[[Change], Path]) -> None:
    loaded = load_checkpoint(save_with(lambda own: own))
    assert loaded.header.golden == canary_answer(loaded.network, loaded.header.image_spec)


@pytest.mark.parametrize("bad", [(0.5, 0.5), (0.5, 0.5, 2.0), (0.5, 0.5, float("nan")), ("a", "b", "c"), 1])
def test_a_header_whose_answer_is_none_is_refused(save_with: Callable[[Change], Path], bad: tuple[float, ...]) -> None:
    with pytest.raises(InvalidHeader, match="'golden' is not 3 probabilities"):
        load_checkpoint(save_with(lambda own: bad))


def state_after_start(path: Path) -> tuple[str, Exception | None, int]:
    """Return how a service of that checkpoint ends its warm-up, and the status that /readyz has then."""
    app = create_app(Settings(checkpoint=path))
    service = app.state.service

    async def start() -> tuple[str, Exception | None, int]:
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x")
        async with app.router.lifespan_context(app), client:
            (error,) = await asyncio.gather(service.warmed_up(), return_exceptions=True)
            return service.state, error, (await client.get("/readyz")).status_code

    return asyncio.run(start())


@pytest.mark.parametrize("change", [lambda own: own, moved(0.005), lambda own: None], ids=["same", "close", "old file"])
def test_a_service_that_answers_right_is_ready(save_with: Callable[[Change], Path], change: Change) -> None:
    assert state_after_start(save_with(change)) == ("ready", None, 200)


def test_a_service_that_answers_wrong_is_never_ready_and_says_what_it_should_have_said(
    save_with: Callable[[Change], Path],
) -> None:
    state, error, status = state_after_start(save_with(moved(0.05)))
    assert (state, status) == ("broken", 503)
    assert isinstance(error, CanaryMismatch)
    expected = load_checkpoint(save_with(moved(0.05))).header.golden
    assert expected is not None
    assert f"should be 'cat' with probability {expected[0]:.4f}, but" in str(error)


@pytest.mark.parametrize(("factor", "state"), [(1.0, "ready"), (1.03, "ready"), (1.1, "broken")])
def test_a_service_to_which_the_canary_is_as_strange_as_it_should_be_is_ready(
    factor: float, state: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    assert loaded.novelty is not None
    moved = replace(loaded.novelty, canary_distance=factor * loaded.novelty.canary_distance)
    save_checkpoint(tmp_path / "moved.safetensors", loaded.network, loaded.header, novelty=moved)
    ended, error, _ = state_after_start(tmp_path / "moved.safetensors")
    assert ended == state
    assert (error is None) == (state == "ready")
    assert state == "ready" or f"should be {moved.canary_distance:.4f} from the nearest class, but" in str(error)


def test_not_a_number_is_a_wrong_answer(save_with: Callable[[Change], Path]) -> None:
    loaded: Checkpoint = load_checkpoint(save_with(lambda own: own))
    with pytest.raises(CanaryMismatch, match="says nan"):
        check_canary(loaded, torch.tensor([0.1, float("nan"), 0.1]))
