"""One real server with the checkpoint that ships, one with a network of another kind, and pages in a real browser.

Whatever asks elsewhere is stopped, and fails the test; so does an error on the browser's console or in the page.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, expect

from tests.server_process import PATIENCE_S, running_server
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.defaults import PRETRAINED
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.uncertainty.answer_sets import AnswerSets, ClassCoverage, SetFigures
from torchlight.model.views.kept_mistakes import KeptMistakes, MistakesSource, mistakes_path, save_mistakes


@dataclass(frozen=True)
class Service:
    """A running server, and its API."""

    url: str
    api: httpx2.Client

    def get(self, path: str) -> dict:
        answer = self.api.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def array(self, path: str) -> np.ndarray:
        return np.load(io.BytesIO(self.api.get(path).content))


@dataclass
class Visit:
    """A page in a window of its own, and what it did."""

    page: Page
    service: Service
    requests: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def upload(self, file: Path) -> str:
        """Choose a file as a person would, and return the id of its image."""
        self.page.goto(self.service.url)
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Choose a file").click()
        chooser.value.set_files(file)
        expect(self.page.locator("#answers")).to_be_visible()
        found = re.search(r"image=(sha256:[0-9a-f]{64})", self.page.url)
        assert found, self.page.url
        return found[1]

    def open(self, view: str, **state: object) -> None:
        """Open a view by its address and wait until all of it is there."""
        self.go(view, **state)
        self.settled()

    def go(self, view: str, **state: object) -> None:
        query = "&".join(f"{name}={value}" for name, value in state.items())
        self.page.goto("about:blank")  # else the browser only goes to another fragment of the page that is there
        self.page.goto(f"{self.service.url}/#/{view}?{query}")

    def asked(self) -> list[str]:
        """Return what the page asked of the API, without the part that all addresses share."""
        return [url.partition("/v1/")[2] for url in self.requests if "/v1/" in url]

    def settled(self) -> None:
        expect(self.page.locator("main h1")).to_be_visible()
        expect(self.page.locator(".waiting")).to_have_count(0)

    def value(self, selector: str) -> float:
        """Return the exact number that an element shows rounded."""
        return float(self.page.locator(selector).first.evaluate("element => element.value"))


@contextmanager
def serving(checkpoint: Path, store: Path) -> Iterator[Service]:
    """Serve a checkpoint until the end of the block."""
    with (
        running_server(checkpoint=checkpoint, store_dir=store, deadline_s=PATIENCE_S) as server,
        httpx2.Client(base_url=server.url, timeout=PATIENCE_S) as api,
    ):
        yield Service(server.url, api)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The checkpoint that ships."""
    with serving(PRETRAINED, tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="module")
def other_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A residual network for pictures of 224 pixels, other classes, random weights, that tells how it was trained.

    Photos that it answered wrongly are beside it.
    """
    names = tuple(f"plant {number}" for number in range(14))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(NetworkConfig("resnet18", len(names)))
    epochs = [
        {"epoch": epoch, "train_loss": 2 / epoch, "val_loss": 2.2 / epoch, "val_accuracy": 1 - 0.8 / epoch}
        for epoch in (1, 2, 3)
    ]
    header = Header(
        network=NetworkConfig("resnet18", len(names)),
        class_names=names,
        image_spec=ImageSpec(224, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        metrics={
            "test": {"accuracy": 0.75, "images": 400},
            "cross_validation": {"accuracy": 0.8, "images": 1250, "interval": [0.777, 0.821], "folds": 5},
        },
        training={"epochs": 3, "history": epochs},
        data={},
        versions={"torch": torch.__version__},
        answer_sets=AnswerSets(
            scores=tuple([0.1] * 12 + [0.93] * 7),  # thresholds of 0.1 for a coverage of 0.5, 0.93 for 0.9
            images=19,
            measured=SetFigures(0.9, 19, 0.895, 6.5, 0.25, ClassCoverage("plant 3", 4, 0.75)),
        ),
    )
    path = tmp_path_factory.mktemp("checkpoint") / "plants.safetensors"
    film = torch.stack([network.get_submodule("conv1").weight.detach() * factor for factor in (0.1, 0.4, 0.7, 1.0)])
    save_checkpoint(path, network, header, filmstrip=film)
    kept = KeptMistakes(
        checkpoint_digest=load_checkpoint(path).digest,
        class_names=names,
        source=MistakesSource("garden", "all photos", "cross_validated"),
        images=(9,) * len(names),
        cells={(0, 1): 5, (2, 3): 1},
        names=("a.jpg", "b.jpg", "c.jpg"),
        photos=torch.arange(3 * 3 * 224**2).view(3, 3, 224, 224).div(700, rounding_mode="floor").to(torch.uint8),
        classes=torch.tensor([[0, 1], [2, 3], [0, 1]], dtype=torch.int32),
        probabilities=torch.tensor([[0.125, 0.75], [0.25, 0.5], [0.25, 0.625]]),
    )
    save_mistakes(mistakes_path(path), kept)
    with serving(path, tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Visit]:
    yield from watched(browser, service)


@pytest.fixture
def other_visit(browser: Browser, other_service: Service) -> Iterator[Visit]:
    yield from watched(browser, other_service)


def watched(browser: Browser, service: Service, **options: object) -> Iterator[Visit]:
    """Yield a page that may speak to the server only, and fail if anything went wrong in it."""
    context = browser.new_context(
        **{"viewport": {"width": 1440, "height": 900}, "locale": "en", "permissions": ["camera"]} | options
    )
    visit = Visit(_page(context), service)
    _watch(context, visit)
    yield visit
    context.close()
    assert visit.troubles == []


def _page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    return page


def _watch(context: BrowserContext, visit: Visit) -> None:
    host = urlsplit(visit.service.url).netloc

    def allow(route: Route) -> None:
        is_ours = urlsplit(route.request.url).netloc == host
        visit.troubles.extend([] if is_ours else [f"asked {route.request.url}"])
        (route.continue_ if is_ours else route.abort)()

    def note(request: Request) -> None:
        visit.requests.append(request.url)

    def listen(message: ConsoleMessage) -> None:
        # The browser itself reports each refusal of the API as an error: those are what some tests are about.
        is_refusal = message.text.startswith("Failed to load resource") and "/v1/" in message.location["url"]
        visit.troubles.extend([message.text] if message.type in ("error", "warning") and not is_refusal else [])

    context.route("**/*", allow)
    visit.page.on("request", note)
    visit.page.on("filechooser", lambda _: None)  # so that no chooser opens before someone expects one
    visit.page.on("console", listen)
    visit.page.on("pageerror", lambda error: visit.troubles.append(f"{error}\n{error.stack}"))


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with an edge, a colour and some grain, wider than high."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 60, (90, 120, 3), dtype=np.uint8)
    pixels[20:70, 40:90] += np.array([180, 90, 30], dtype=np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def stored(service: Service, photo: Path) -> str:
    """The id of the photo on the server."""
    return str(service.api.post("/v1/images", files={"file": photo.read_bytes()}).json()["id"])


@pytest.fixture(scope="module")
def other_stored(other_service: Service, photo: Path) -> str:
    return str(other_service.api.post("/v1/images", files={"file": photo.read_bytes()}).json()["id"])
